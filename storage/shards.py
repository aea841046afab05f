"""WebDataset shards of one version: `OUT/<split>/<sensor>-<number>.tar`, an index, a manifest.

The bytes are a function of the version and the options alone. The manifest is written last: a
folder without one is no set of shards.
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from storage.index import read_index
from storage.location import Location
from storage.nodes import array, plain, subgroup
from storage.schema import SPLITS, TILE_SIZE, SchemaError
from storage.shardset import INDEX, MANIFEST, SCHEMA, file_sha256, open_shards
from storage.spectra import SensorTable
from storage.store import find_version, open_repository
from storage.tar import Span, TarWriter
from storage.versions import Version

TILES_PER_SHARD = 256
_READ_TILES = 16
_UNFINISHED = ".unfinished"
_OURS = re.compile(
    r"[a-z]+/[a-z0-9_]+-[0-9]{6}\.tar(\.tmp)?|(index\.parquet|manifest\.json)(\.tmp)?"
)

type Progress = Callable[[int, int], None]


def write_shards(
    location: Location,
    out: Path | str,
    *,
    version: str | None = None,
    tiles_per_shard: int = TILES_PER_SHARD,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write one version of a store as shards; a finished set of the same version is left as is.

    Holds one shard's metadata and a few tiles in memory, and the index of all tiles.

    Args:
        location: The store.
        out: A folder that is new, empty, or left over from a run that was cut off.
        version: A tag, or None for the head.
        tiles_per_shard: Samples in a shard, the last of each split and sensor has fewer.
        progress: Called with the tiles written so far and their total, after each shard.

    Returns:
        The manifest.

    Raises:
        SchemaError: `out` holds something else, the version has no tiles, or one sensor has
            several band counts, dtypes, scales or units.
    """
    repo = open_repository(location)
    chosen = find_version(repo, version)
    root = Path(out)
    if (root / MANIFEST).exists():
        return _same_set(root, chosen, tiles_per_shard)
    group = zarr.open_group(repo.readonly_session(snapshot_id=chosen.snapshot).store, mode="r")
    table = _ordered(read_index(group))
    if not len(table):
        raise SchemaError(f"version {chosen.tag} has no tiles, so there are no shards to write")
    _prepare(root)
    sensors = SensorTable(table)
    shards: list[dict[str, Any]] = []
    spans: list[Span] = []
    for name, rows in _plan(table, tiles_per_shard):
        part = table.slice(rows.start, len(rows))
        shards.append(_write_shard(root, name, group, part, sensors, spans))
        if progress:
            progress(len(spans), len(table))
    manifest = {
        **_origin(group, chosen, tiles_per_shard),
        "tiles": len(table),
        "splits": {s: sum(e["samples"] for e in shards if e["split"] == s) for s in SPLITS},
        "sensors": sensors.manifest(),
        "spectral": sensors.spectral,
        "shards": shards,
        "index": _write_index(root, table, shards, spans, sensors),
    }
    _write_manifest(root, manifest)
    return manifest


def _ordered(table: pa.Table) -> pa.Table:
    """Sort by split and sensor, keeping the version's own order of tiles within."""
    ranks = [table[name].combine_chunks().indices.to_numpy() for name in ("sensor", "split")]
    return table.take(np.lexsort(ranks)).combine_chunks()


def _plan(table: pa.Table, size: int) -> Iterator[tuple[str, range]]:
    """Yield each shard's name and its rows of the sorted table."""
    split, sensor = (table[name].combine_chunks() for name in ("split", "sensor"))
    key = split.indices.to_numpy().astype(np.int64) * 1000 + sensor.indices.to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(key)) + 1).tolist(), len(key)]
    for start, stop in itertools.pairwise(edges):
        stem = f"{split[start]}/{sensor[start]}"
        for number, first in enumerate(range(start, stop, size)):
            yield f"{stem}-{number:06d}.tar", range(first, min(first + size, stop))


def _write_shard(
    root: Path,
    name: str,
    group: zarr.Group,
    part: pa.Table,
    sensors: SensorTable,
    spans: list[Span],
) -> dict[str, Any]:
    (root / name).parent.mkdir(exist_ok=True)
    with TarWriter(root / name) as tar:
        for record, tile, valid in _tiles(group, part):
            spectral = sensors.add(group, record, tile, valid)
            spans.append(tar.add_array(f"{record['tile_id']}.tile.npy", tile))
            meta = {**record, "spectral": spectral}
            tar.add_bytes(f"{record['tile_id']}.meta.json", _json(meta))
    split, file = name.split("/")
    return {
        "name": name,
        "split": split,
        "sensor": file.rpartition("-")[0],
        "bytes": tar.bytes,
        "sha256": tar.sha256,
        "samples": len(part),
    }


def _tiles(
    group: zarr.Group, part: pa.Table
) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """Yield each tile's row, pixels (band, y, x) and mask (y, x), reading a few at a time."""
    records = part.to_pylist()
    scenes = [record["scene_id"] for record in records]
    start = 0
    while start < len(records):
        stop = start
        while stop < min(start + _READ_TILES, len(records)) and scenes[stop] == scenes[start]:
            stop += 1
        scene = subgroup(group, f"scenes/{scenes[start]}")
        positions = np.array([record["position"] for record in records[start:stop]])
        pixels, masks = (
            np.asarray(array(scene, name).oindex[positions]) for name in ("tiles", "valid")
        )
        yield from zip(records[start:stop], pixels, masks, strict=True)
        start = stop


def _origin(group: zarr.Group, version: Version, tiles_per_shard: int) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "dataset": group.attrs["dataset"],
        "version": version.tag,
        "snapshot": version.snapshot,
        "recipe_hash": version.recipe_hash,
        "code_version": version.code_version,
        "tile_size": TILE_SIZE,
        "tiles_per_shard": tiles_per_shard,
    }


def _write_index(
    root: Path,
    table: pa.Table,
    shards: list[dict[str, Any]],
    spans: list[Span],
    sensors: SensorTable,
) -> dict[str, Any]:
    number = np.repeat(np.arange(len(shards), dtype="i4"), [e["samples"] for e in shards])
    names = pa.array([entry["name"] for entry in shards])
    added = {
        "shard": pa.DictionaryArray.from_arrays(pa.array(number), names),
        "offset": pa.array([span.offset for span in spans], pa.int64()),
        "length": pa.array([span.length for span in spans], pa.int64()),
        "spectral": pa.array(sensors.rows, pa.int16()),
    }
    for name, column in added.items():
        table = table.append_column(name, column)
    partial = root / f"{INDEX}.tmp"
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, root / INDEX)
    size = (root / INDEX).stat().st_size
    return {"name": INDEX, "bytes": size, "sha256": file_sha256(root / INDEX)}


def _write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    partial = root / f"{MANIFEST}.tmp"
    partial.write_bytes(json.dumps(plain(manifest), indent=1, allow_nan=False).encode() + b"\n")
    os.replace(partial, root / MANIFEST)
    (root / _UNFINISHED).unlink()


def _same_set(root: Path, version: Version, tiles_per_shard: int) -> dict[str, Any]:
    manifest = open_shards(root, verify=True).manifest
    expected = version.snapshot, tiles_per_shard
    if (manifest["snapshot"], manifest["tiles_per_shard"]) != expected:
        raise SchemaError(
            f"{root} holds {manifest['dataset']} {manifest['version']} with "
            f"{manifest['tiles_per_shard']} tiles a shard, not {version.tag} with "
            f"{tiles_per_shard}; name another folder, or remove this one"
        )
    (root / _UNFINISHED).unlink(missing_ok=True)
    return manifest


def _prepare(root: Path) -> None:
    """Make an empty folder of `root`, clearing what a run that was cut off left in it."""
    files = [path for path in root.rglob("*") if not path.is_dir()] if root.exists() else []
    others = [p for p in files if not _OURS.fullmatch(p.relative_to(root).as_posix())]
    if files and others != [root / _UNFINISHED]:
        raise SchemaError(
            f"{root} must be a new or an empty folder, got files such as {files[0]}; name another"
        )
    for path in files:
        if path not in others:
            path.unlink()
    root.mkdir(parents=True, exist_ok=True)
    (root / _UNFINISHED).touch()


def _json(record: dict[str, Any]) -> bytes:
    return json.dumps(
        plain(record), sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()
