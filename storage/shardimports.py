"""A set of shards of tiles that are in no store; its manifest says where they are from."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.places import Folder, Place, place_of
from storage.schema import TILE_SIZE, SchemaError
from storage.shardoptions import ShardOptions
from storage.shardplan import Plan, plan_of
from storage.shardset import MANIFEST, SCHEMA, open_shards
from storage.shardtables import records_of
from storage.shardtiles import Origin, Rejected, Tiles
from storage.shardwork import Work, content_of
from storage.shardwriter import Progress, tidy, write_set
from storage.spectra import Spectra

REJECTED = "rejected.csv"
"""Source, reason and detail of every input that is in no shard."""
VERSION = "import"


@dataclass(frozen=True)
class Foreign:
    """What is to be imported."""

    dataset: str
    table: pa.Table
    """The index columns of each planned tile, with `spectral`."""
    spectra: Spectra
    recipe: dict[str, Any]
    """What was chosen; goes to the manifest."""
    recipe_hash: str
    code_version: str
    rejected: list[Rejected]
    """What was no tile by its name alone."""
    ignored: dict[str, int]
    """By extension, files that were not looked at."""


def write_import(
    origin: Origin,
    foreign: Foreign,
    out: Path | str,
    *,
    options: ShardOptions,
    jobs: int = 1,
    progress: Progress | None = None,
    told: Callable[[Rejected], None] | None = None,
) -> dict[str, Any]:
    """Write foreign tiles as shards; a finished set of the same is left as it is.

    A shard has the tiles of as many inputs as options say, less those that were rejected. A run
    that was cut off goes on: its inputs are read again, and what is made of the same bytes stays.

    Args:
        origin: Where the tiles come from .
        foreign: What they are.
        out: A folder or `s3://bucket/prefix`, as for `write_shards`.
        options: How shards are made.
        jobs: Processes that each make a shard at a time.
        progress: Called with the inputs done so far and their total.
        told: Called with each input that is rejected; what it raises ends the run.

    Returns:
        The manifest.

    Raises:
        SchemaError: `out` holds something else, or no input can be taken.
    """
    place = place_of(out)
    plan = plan_of(foreign.table, foreign.spectra, options)
    work = Work(origin, place, options.dtype, options.codec, labels=None)
    tiles = origin.open()
    if place.size(MANIFEST) is not None:
        return _same_set(place, work, tiles, plan, foreign, options)
    for each in foreign.rejected:
        if told:
            told(each)

    def described() -> dict[str, Any]:
        return _described(place, plan, foreign, options)

    made = write_set(work, tiles, plan, options, described, jobs=jobs, progress=progress, told=told)
    return made or _same_set(place, work, tiles, plan, foreign, options)


def _described(place: Place, plan: Plan, foreign: Foreign, options: ShardOptions) -> dict[str, Any]:
    """Return what the manifest says of the origin; writes the list of what was rejected."""
    reasons: Counter[str] = Counter()

    def rejected() -> Iterator[Rejected]:
        yield from foreign.rejected
        for record in records_of(place, plan):
            yield from record.rejected

    with place.writing(REJECTED) as sink:
        sink.write(_line("source", "reason", "detail"))
        for each in rejected():
            reasons[each.reason] += 1
            sink.write(_line(each.source, each.reason, each.detail))
    out = sum(reasons.values())
    total = len(plan.table) + len(foreign.rejected)
    return {
        "schema": SCHEMA,
        "dataset": foreign.dataset,
        "version": VERSION,
        "snapshot": _snapshot(record.entry["content"] for record in records_of(place, plan)),
        "recipe_hash": foreign.recipe_hash,
        "code_version": foreign.code_version,
        "tile_size": TILE_SIZE,
        "tiles_per_shard": options.manifest()["tiles_per_shard"],
        "options": options.manifest(),
        "import": {
            "recipe": foreign.recipe,
            "in": total,
            "kept": total - out,
            "rejected": dict(sorted(reasons.items())),
            "ignored": dict(sorted(foreign.ignored.items())),
        },
        "rejected": {"name": REJECTED, "bytes": sink.bytes, "sha256": sink.sha256},
    }


def _same_set(
    place: Place, work: Work, tiles: Tiles, plan: Plan, foreign: Foreign, options: ShardOptions
) -> dict[str, Any]:
    """Return the manifest of a finished set, read again, if it is what is wanted."""
    out = place.root if isinstance(place, Folder) else str(place)
    manifest = open_shards(out, verify=True).manifest
    snapshot = _snapshot(content_of(work, tiles, task) for task in plan.tasks())
    wanted = {
        "dataset": foreign.dataset,
        "snapshot": snapshot,
        "recipe_hash": foreign.recipe_hash,
        "options": options.manifest(),
    }
    unlike = [name for name, value in wanted.items() if manifest[name] != value]
    if unlike:
        raise SchemaError(
            f"{place} holds {manifest['dataset']} {manifest['version']}, made of other inputs or "
            f"with other options ({', '.join(unlike)}); name another folder, or remove this one"
        )
    tidy(place)
    return manifest


def _snapshot(contents: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def _line(*fields: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().encode()
