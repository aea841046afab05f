"""WebDataset shards of one version of a store.

The bytes are a function of the version and the options alone, whatever wrote them: one process or
many, at once or after being cut off, anew or with shards of another set.
"""

from pathlib import Path
from typing import Any

import zarr

from storage.labels import Labels, open_labels
from storage.location import Location
from storage.places import Folder, Place, place_of
from storage.schema import TILE_SIZE, SchemaError
from storage.shardoptions import Condition, ShardOptions
from storage.shardplan import Plan, make_plan
from storage.shardset import MANIFEST, SCHEMA, open_shards
from storage.shardsources import Source
from storage.shardtables import label_manifest
from storage.shardwork import Work
from storage.shardwriter import Progress, tidy, write_set
from storage.store import open_repository
from storage.storetiles import Snapshot, StoreTiles, open_group
from storage.versions import Version, find_version

__all__ = ["Condition", "Progress", "ShardOptions", "write_shards"]


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
    work = Work(
        Snapshot(location, chosen.snapshot), place, options.dtype, options.codec, labels,
        before=None if source is None else source.place,
        kept=None if source is None else source.entries,
    )  # fmt: skip

    def described() -> dict[str, Any]:
        found = _origin(group, chosen, options)
        found["options"]["labels"] = label_manifest(place, plan, labels)
        return found

    manifest = write_set(
        work, StoreTiles(group), plan, options, described, jobs=jobs, source=source,
        progress=progress,
    )  # fmt: skip
    return _same_set(location, place, chosen, options) if manifest is None else manifest


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
    tidy(place)
    return manifest


def _listed(options: dict[str, Any], names: list[str]) -> str:
    return "".join(f", {name} {options.get(name)}" for name in names)
