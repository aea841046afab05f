"""WebDataset shards of one version: `OUT/<split>/<sensor>-<number>.tar`, tables, a manifest.

The bytes are a function of the version and the options alone, whatever wrote them: one process or
many, at once or after being cut off, anew or with shards of another set. The manifest is written
last: a place without one is no set of shards.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zarr

from storage.labels import Labels, open_labels
from storage.location import Location
from storage.places import UNFINISHED, Folder, Place, place_of, put
from storage.schema import TILE_SIZE, SchemaError
from storage.shardjobs import run
from storage.shardoptions import Condition, ShardOptions
from storage.shardplan import Plan, make_plan
from storage.shardrecords import record_name
from storage.shardset import MANIFEST, SCHEMA, open_shards
from storage.shardsources import Source
from storage.shardtables import label_manifest, write_manifest, write_tables
from storage.shardwork import Work, open_group
from storage.store import open_repository
from storage.versions import Version, find_version

__all__ = ["Condition", "ShardOptions", "write_shards"]

type Progress = Callable[[int, int], None]

_OURS = re.compile(
    r"\.unfinished/.*|[a-z]+/[a-z0-9_]+-[0-9]{6}\.tar|index\.parquet|(checksums|masks|sums)\.npy"
)
_BEGUN = f"{UNFINISHED}/begun"
_KEPT = (_BEGUN, f"{UNFINISHED}/lock", f"{UNFINISHED}/lease.json")


def write_shards(
    location: Location,
    out: Path | str,
    *,
    version: str | None = None,
    options: ShardOptions | None = None,
    jobs: int = 1,
    previous: Path | str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write one version of a store as shards; a finished set of the same is left as it is.

    Each shard is read again when it is written. A run that was cut off goes on behind its last
    finished shard. Holds one shard's metadata and a few tiles in memory for each job, and the
    index of all tiles.

    Args:
        location: The store.
        out: A folder or `s3://bucket/prefix` that is new, empty, or left over from a run that was
            cut off.
        version: A tag, or None for the head.
        options: What the bytes follow from beside the version; None: the defaults.
        jobs: Processes that each make a shard at a time; 1: this one alone.
        previous: A finished set, such as that of the version before: shards that would be the same
            are taken from it, by hard link or a copy.
        progress: Called with the tiles done so far and their total, after each shard.

    Returns:
        The manifest.

    Raises:
        SchemaError: `out` holds something else, no tile is chosen, the scenes of a sensor are
            unlike, int16 is wanted of float32, labels do not fit, or `previous` is no set.
        ChildProcessError: One of the jobs was killed.
    """
    options = ShardOptions() if options is None else options
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    chosen = find_version(open_repository(location), version)
    place = place_of(out)
    if place.size(MANIFEST) is not None:
        return _same_set(location, place, chosen, options)
    group = open_group(location, chosen.snapshot)
    plan = make_plan(group, options, chosen.tag)
    labels = _labels(options, plan)
    source = None if previous is None else Source.open(previous)
    _refuse_others(place)
    with place.guard() as held:
        if place.size(MANIFEST) is not None:  # another run has just ended
            return _same_set(location, place, chosen, options)
        put(place, _BEGUN, b"")  # from now on, what lies here is ours
        _clear(place, plan)
        work = Work(
            location, chosen.snapshot, place, options.dtype, options.codec, labels,
            before=None if source is None else source.place,
            kept=None if source is None else source.entries,
        )  # fmt: skip
        _make(work, group, plan, jobs, source, progress)
        manifest = {
            **_origin(group, chosen, options),
            **write_tables(place, plan, options),
        }
        manifest["options"]["labels"] = label_manifest(place, plan, labels)
        held.check()
        write_manifest(place, manifest)
    _tidy(place)
    return manifest


def _make(
    work: Work,
    group: zarr.Group,
    plan: Plan,
    jobs: int,
    source: Source | None,
    progress: Progress | None,
) -> None:
    done, total = 0, len(plan.table)
    for result in run(work, group, plan.tasks(), jobs):
        if result.taken is not None and source is not None:
            source.save_record(work, result)
        done += result.samples
        if progress:
            progress(done, total)


def _labels(options: ShardOptions, plan: Plan) -> Labels | None:
    return None if options.labels is None else open_labels(options.labels, plan.spectra.numbers)


def _origin(group: zarr.Group, version: Version, options: ShardOptions) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "dataset": group.attrs["dataset"],
        "version": version.tag,
        "snapshot": version.snapshot,
        "recipe_hash": version.recipe_hash,
        "code_version": version.code_version,
        "tile_size": TILE_SIZE,
        "tiles_per_shard": options.manifest()["tiles_per_shard"],
        "options": options.manifest(),
    }


def _same_set(
    location: Location, place: Place, version: Version, options: ShardOptions
) -> dict[str, Any]:
    """Return the manifest of a finished set, read again, if it is what is wanted."""
    out = place.root if isinstance(place, Folder) else str(place)
    manifest = open_shards(out, verify=True).manifest
    expected = options.manifest()
    if options.labels is not None and manifest["options"]["labels"] is not None:
        group = open_group(location, version.snapshot)
        plan = make_plan(group, options, version.tag)
        expected["labels"] = label_manifest(None, plan, _labels(options, plan))
    got = manifest["options"]
    if manifest["snapshot"] != version.snapshot or got != expected:
        unlike = [name for name in expected if got.get(name) != expected[name]]
        raise SchemaError(
            f"{place} holds {manifest['dataset']} {manifest['version']}{_listed(got, unlike)}, "
            f"not {version.tag}{_listed(expected, unlike)}; name another folder, or remove this one"
        )
    _tidy(place)
    return manifest


def _listed(options: dict[str, Any], names: list[str]) -> str:
    return "".join(f", {name} {options.get(name)}" for name in names)


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


def _tidy(place: Place) -> None:
    for name in place.names():
        if name.startswith(f"{UNFINISHED}/"):
            place.remove(name)
