"""`hypersigma-data import`: shards of tiles that somebody else cut."""

import logging
import math
import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.commands.output import complain, said_in_words, say
from pipeline.commands.shards import byte_count, shown
from storage.schema import SPLITS, SchemaError
from storage.shardoptions import TILES_PER_SHARD, ShardOptions

if TYPE_CHECKING:
    from storage.shardtiles import Rejected

logger = logging.getLogger("pipeline")

_NAMED = 5
"""Inputs that are named while they are rejected; all are in the set's list."""


def split_shares(text: str) -> dict[str, float]:
    """Return the shares that a text such as `train` or `train=0.9,val=0.1` names, together 1.

    Raises:
        typer.BadParameter: It is none.
    """
    parts = [part.partition("=") for part in text.replace(" ", "").split(",")]
    shares: dict[str, float] = {}
    for name, _, share in parts:
        known = re.fullmatch(r"\d+\.?\d*|\.\d+", share or "1")
        if name not in SPLITS or name in shares or known is None or not float(known[0]):
            raise typer.BadParameter(f"expected train, or train=0.9,val=0.1, got {text!r}")
        shares[name] = float(known[0])
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def import_(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, .tar, .mat or .npy files; 'part-{000..009}.tar' names ten.",
        ),
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="A folder or s3://bucket/prefix.")],
    sensor: Annotated[
        str | None,
        typer.Option(help="Of all tiles; if none, by names: EO1* hyperion, GF5* ahsi."),
    ] = None,
    bands: Annotated[str, typer.Option(help="The list that the bands are of.")] = "hyperglobal",
    key: Annotated[str, typer.Option(help="Of the variable in .mat files.")] = "img",
    scale: Annotated[
        float | None, typer.Option(help="Value = stored / scale; 4000 for integers if none.")
    ] = None,
    nodata: Annotated[
        float | None, typer.Option(help="A value of no measurement, beside 0 and NaN: -9999, 1e36.")
    ] = None,
    dtype: Annotated[
        Literal["int16", "float32"] | None, typer.Option(help="If none, what the values need.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of all tiles, or shares by scene, as train=0.9,val=0.1.")
    ] = "train",
    name: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Of names without extension, with (?P<scene>...), and row and col in pixels.",
        ),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option(
            metavar="EXT", help="Which array of a sample, as tile.npy, if there are more."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the data set; the source's if none.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first input that cannot be taken.")
    ] = False,
    tiles_per_shard: Annotated[
        int | None, typer.Option(min=1, help=f"Inputs of a shard; {TILES_PER_SHARD} if none.")
    ] = None,
    shard_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Instead: about so much, such as 1GB.")
    ] = None,
    codec: Annotated[
        Literal["none", "lz4", "zstd"], typer.Option(help="Compress each tile as a frame.")
    ] = "none",
    jobs: Annotated[int, typer.Option(min=1, help="Shards written at a time, a process each.")] = 1,
) -> None:
    """Write shards of tiles that others cut: .mat or .npy files, or WebDataset tar files of such.

    An input that is no such tile is left out, counted, and named in OUT/rejected.csv. A run that
    was cut off goes on where it was when it is started again.
    """
    size = None if shard_bytes is None else byte_count(shard_bytes)
    if tiles_per_shard is not None and size is not None:
        raise typer.BadParameter("expected --tiles-per-shard or --shard-bytes, got both")
    if scale is not None and not 0 < scale < math.inf:
        raise typer.BadParameter(f"--scale must be a number greater than 0, got {scale}")
    from pipeline.foreign import ImportOptions, Naming, import_tiles
    from storage.shardimports import REJECTED

    naming = Naming(sensor, _pattern(name), split_shares(split))
    options = ImportOptions(key, bands, scale, dtype, member, dataset, naming, nodata)
    with said_in_words():
        made = ShardOptions(
            tiles_per_shard=tiles_per_shard or (TILES_PER_SHARD if size is None else None),
            shard_bytes=size,
            codec=codec,
        )
    seen: list[Rejected] = []

    def told(rejected: "Rejected") -> None:
        text = f"{rejected.source}: {rejected.reason}: {rejected.detail}"
        if strict:
            raise SchemaError(f"{text}; without --strict it would be left out")
        if len(seen) < _NAMED:
            seen.append(rejected)
            logger.warning("left out: %s", text)

    with said_in_words(), shown("import", "inputs") as progress:
        manifest = import_tiles(
            sources, out, options=options, shards=made, jobs=jobs, progress=progress, told=told
        )
    found = manifest["import"]
    if found["rejected"]:
        reasons = ", ".join(f"{reason} ({n})" for reason, n in found["rejected"].items())
        count = found["in"] - found["kept"]
        complain(f"{count} of {found['in']} inputs left out: {reasons}; see {out}/{REJECTED}")
    if found["ignored"]:
        others = ", ".join(f"{suffix} ({n})" for suffix, n in found["ignored"].items())
        say(f"not looked at: {others}")
    say(f"{manifest['tiles']} tiles in {len(manifest['shards'])} shards: {out}")


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        found = re.compile(text)
    except re.error as error:
        raise typer.BadParameter(f"--name must be a regular expression: {error}") from error
    if "scene" not in found.groupindex:
        raise typer.BadParameter("--name must have a group (?P<scene>...)")
    return found
