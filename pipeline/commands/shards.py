"""`hypersigma-data shards`: WebDataset shards of one version, in a folder or a bucket."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from pipeline.commands.output import StoreArgument, err, said_in_words, say
from storage.schema import SPLITS
from storage.shardoptions import TILES_PER_SHARD, Condition, ShardOptions

if TYPE_CHECKING:
    from storage.shards import Progress as Told

logger = logging.getLogger("pipeline")

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def byte_count(text: str) -> int:
    """Return the bytes that a text such as 1GB, 512MiB or 1000000 names.

    Raises:
        typer.BadParameter: It is none.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    unit = "" if found is None else found[2].lower().removesuffix("b") + "b" * bool(found[2])
    if found is None or unit not in _UNITS:
        raise typer.BadParameter(f"expected bytes such as 1GB, 512MiB or 1000000, got {text!r}")
    return int(float(found[1]) * _UNITS[unit])


def shards(
    location: StoreArgument,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A folder or s3://bucket/prefix.")],
    version: Annotated[str | None, typer.Option(help="A tag; the current version if none.")] = None,
    tiles_per_shard: Annotated[
        int | None, typer.Option(min=1, help=f"Tiles in a shard; {TILES_PER_SHARD} if none.")
    ] = None,
    shard_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Instead: about so much, such as 1GB, before a codec."),
    ] = None,
    dtype: Annotated[
        Literal["int16", "float32"] | None, typer.Option(help="Of pixels; the store's if none.")
    ] = None,
    codec: Annotated[
        Literal["none", "lz4", "zstd"], typer.Option(help="Compress each tile as a frame.")
    ] = "none",
    split: Annotated[
        list[str] | None,
        typer.Option(help=f"Of {', '.join(SPLITS)}; may be given several times; all if none."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Only tiles for which this holds; see query.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="classes.json and <scene_id>.npy a scene.")
    ] = None,
    append: Annotated[
        str | None,
        typer.Option(metavar="PREVIOUS", help="A finished set; what is the same is taken over."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Shards written at a time, a process each.")] = 1,
) -> None:
    """Write WebDataset shards of one version; the same version and options give the same bytes.

    A run that was cut off goes on where it was when it is started again.
    """
    if tiles_per_shard is not None and shard_bytes is not None:
        raise typer.BadParameter("expected --tiles-per-shard or --shard-bytes, got both")
    if unknown := set(split or ()) - set(SPLITS):
        raise typer.BadParameter(f"--split must be one of {SPLITS}, got {sorted(unknown)}")
    size = None if shard_bytes is None else byte_count(shard_bytes)
    with said_in_words(), shown("shards", "tiles") as told:
        from storage.shards import write_shards

        options = ShardOptions(
            tiles_per_shard=tiles_per_shard or (TILES_PER_SHARD if size is None else None),
            shard_bytes=size,
            dtype=dtype,
            codec=codec,
            splits=SPLITS if split is None else tuple(split),
            where=_condition(where),
            labels=labels,
        )
        manifest = write_shards(
            location, out, version=version, options=options, jobs=jobs, previous=append,
            progress=told,
        )  # fmt: skip
    tiles = sum(shard["samples"] for shard in manifest["shards"])
    say(f"{tiles} tiles of {manifest['version']} in {len(manifest['shards'])} shards: {out}")


def _condition(text: str | None) -> Condition | None:
    if text is None:
        return None
    from pipeline.catalogue.query import condition

    return condition(text)


@contextmanager
def shown(work: str, what: str) -> "Iterator[Told]":
    """Yield what shows progress: a bar on a terminal, elsewhere a line at each tenth."""
    if not err.is_terminal:
        seen = [0]

        def log(done: int, total: int) -> None:
            if done == total or done * 10 // total > seen[0]:
                seen[0] = done * 10 // total
                logger.info("%s: %d of %d %s", work, done, total, what)

        yield log
        return
    columns = (work, BarColumn(), MofNCompleteColumn(), what, TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(work, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
