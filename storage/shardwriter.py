"""A set of shards in the making: `OUT/<split>/<sensor>-<number>.tar`, tables, a manifest.

The manifest is written last: a place without one is no set of shards.
"""

import re
from collections.abc import Callable
from typing import Any

from storage.places import UNFINISHED, Place, put
from storage.schema import SchemaError
from storage.shardjobs import run
from storage.shardoptions import ShardOptions
from storage.shardplan import Plan
from storage.shardrecords import record_name
from storage.shardset import MANIFEST
from storage.shardsources import Source
from storage.shardtables import write_manifest, write_tables
from storage.shardtiles import Rejected, Tiles
from storage.shardwork import Work

type Progress = Callable[[int, int], None]

_OURS = re.compile(
    r"\.unfinished/.*|[a-z]+/[a-z0-9_]+-[0-9]{6}\.tar|index\.parquet|rejected\.csv|(checksums|masks|sums)\.npy"
)
_BEGUN = f"{UNFINISHED}/begun"
_KEPT = (_BEGUN, f"{UNFINISHED}/lock", f"{UNFINISHED}/lease.json")


def write_set(
    work: Work,
    tiles: Tiles,
    plan: Plan,
    options: ShardOptions,
    described: Callable[[], dict[str, Any]],
    *,
    jobs: int = 1,
    source: Source | None = None,
    progress: Progress | None = None,
    told: Callable[[Rejected], None] | None = None,
) -> dict[str, Any] | None:
    """Write a set of shards; one that was cut off goes on behind its last finished shard.

    Args:
        work: What the shards are made with.
        tiles: Its origin, opened by this process.
        plan: What goes where.
        options: As the manifest says them.
        described: Returns what the manifest says of the origin, when all shards are there.
        jobs: Processes that each make a shard at a time; 1: this one alone.
        source: A finished set that shards may be taken from.
        progress: Called with the planned tiles done so far and their total, after each shard.
        told: Called with each tile that cannot be taken; what it raises ends the run.

    Returns:
        The manifest; None if another run has just finished a set here.

    Raises:
        SchemaError: The place holds something else, or no tile is left.
        ChildProcessError: One of the jobs was killed.
    """
    place = work.place
    _refuse_others(place)
    with place.guard() as held:
        if place.size(MANIFEST) is not None:
            return None
        put(place, _BEGUN, b"")  # from now on, what lies here is ours
        _clear(place, plan)
        count = _make(work, tiles, plan, jobs, source, progress, told)
        if not count:
            raise SchemaError(f"none of {len(plan.table)} tiles can be taken, so {place} is no set")
        manifest = {**described(), **write_tables(place, plan, options, count)}
        held.check()
        write_manifest(place, manifest)
    tidy(place)
    return manifest


def tidy(place: Place) -> None:
    """Remove what only the making of a set needs."""
    for name in place.names():
        if name.startswith(f"{UNFINISHED}/"):
            place.remove(name)


def _make(
    work: Work,
    tiles: Tiles,
    plan: Plan,
    jobs: int,
    source: Source | None,
    progress: Progress | None,
    told: Callable[[Rejected], None] | None,
) -> int:
    """Finish all shards; return how many tiles are in them."""
    done, kept, total = 0, 0, len(plan.table)
    for result in run(work, tiles, plan.tasks(), jobs):
        if result.taken is not None and source is not None:
            source.save_record(work, result)
        if told:
            for each in result.rejected:
                told(each)
        kept += result.samples
        done += result.samples + len(result.rejected)
        if progress:
            progress(done, total)
    return kept


def _refuse_others(place: Place) -> None:
    """Refuse a place with files of which no run that was cut off says that they are its own.

    Raises:
        SchemaError: There are such files.
    """
    files = place.names()
    ours = [name for name in files if name.startswith(f"{UNFINISHED}/")]
    others = [name for name in files if not _OURS.fullmatch(name)]
    if others or (files and not ours):
        raise SchemaError(
            f"{place} must be a new or an empty folder, got files such as {(others or files)[0]}; "
            "name another"
        )


def _clear(place: Place, plan: Plan) -> None:
    """Remove what a run that was cut off left and this one does not need."""
    shards = [name for name, _ in plan.shards]
    needed = {*shards, *map(record_name, shards)}
    for name in place.names():
        if name not in needed and name not in _KEPT:
            place.remove(name)
