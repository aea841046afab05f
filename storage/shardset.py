"""A finished set of shards: its manifest and index, checked against the files that are there."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.nearby import content, mapped_table, near, sizes_of
from storage.places import Folder, Place, digest, place_of
from storage.schema import SchemaError

SCHEMA = "hypersigma-shards/1"
MANIFEST = "manifest.json"
INDEX = "index.parquet"
CHECKSUMS = "checksums.npy"
"""uint32 (tile, band), with a codec (tile, 1): of each band's bytes, or of the tile's frame."""
MASKS = "masks.npy"
"""uint8 (tile, 512): packed bits of which pixels (y, x) are valid."""
SUMS = "sums.npy"
"""float64 (shard, 3, band): count, mean and squared deviations, of which statistics are made."""
_TABLES = {"index", "checksums", "masks"}
_NEEDED = {"tiles", "splits", "sensors", "spectral", "shards", "options"} | _TABLES
_REDO = "write the set again with `hypersigma-data shards STORE OUT` into an empty folder"


@dataclass(frozen=True, eq=False)
class ShardSet:
    """Shards of one version of a dataset, opened."""

    root: Any  # a Path | str, which the stream of today, local alone, would not take
    """The folder (a Path), or the URL of a bucket's prefix (text)."""
    manifest: dict[str, Any]
    index: pa.Table
    """One row a tile, in the order of the shards; memory-mapped if there are many."""

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker opens its own: an index is soon larger than what a pipe should carry.
        return _reopened, (self.root, self.manifest["index"]["sha256"])


def open_shards(out: Path | str, *, verify: bool = False) -> ShardSet:
    """Open a set of shards, reading its manifest and tables only.

    Args:
        out: The folder, or `s3://bucket/prefix`, that `write_shards` filled.
        verify: Read all shards, too, and compare their sha256.

    Raises:
        SchemaError: No manifest, or files that are not what it says.
    """
    place = place_of(out)
    local = isinstance(place, Folder)
    root = place.root if isinstance(place, Folder) else str(place)
    manifest = _read_manifest(root)
    size = sizes_of(root)
    for entry in manifest["shards"]:
        _check_file(place, entry, size(entry["name"]), compare=verify)
    for name in (*sorted(_TABLES), "sums"):
        if name in manifest:
            # Of a bucket, a table is compared when it is fetched, once for all processes.
            entry = manifest[name]
            _check_file(place, entry, size(entry["name"]), compare=verify or local)
    index = _index(root, manifest)
    samples = sum(entry["samples"] for entry in manifest["shards"])
    if not len(index) == samples == manifest["tiles"]:
        raise SchemaError(
            f"{place}: the manifest must agree with itself, got {manifest['tiles']} tiles, "
            f"{samples} samples in shards and {len(index)} rows of {INDEX}; {_REDO}"
        )
    return ShardSet(root, manifest, index)


def check_tables(out: Path | str, manifest: dict[str, Any]) -> None:
    """Read all files of a set but the shards, and compare their sha256.

    Raises:
        SchemaError: One is not what the manifest says.
    """
    for name in (*sorted(_TABLES), "sums"):
        if name in manifest:
            place, entry = place_of(out), manifest[name]
            _check_file(place, entry, place.size(entry["name"]), compare=True)


def select(shards: ShardSet, *, split: str | None = None, sensor: str | None = None) -> np.ndarray:
    """Return the index rows (int64) of a split and a sensor, ascending; None takes all.

    Raises:
        SchemaError: The set has no such tile.
    """
    keep = np.ones(len(shards.index), dtype=bool)
    for name, value in (("split", split), ("sensor", sensor)):
        if value is not None:
            keep &= np.asarray(pc.equal(shards.index[name], value))
    rows = np.flatnonzero(keep)
    if not len(rows):
        have = shards.manifest["splits"], sorted(shards.manifest["sensors"])
        raise SchemaError(
            f"{shards.root}: no tile with split {split!r} and sensor {sensor!r}; it has {have}"
        )
    return rows


def codes(shards: ShardSet, name: str) -> tuple[np.ndarray, list[str]]:
    """Return a text column of the index as numbers (row), and the texts that they stand for."""
    column = shards.index[name]
    # combine_chunks copies even one chunk, and so what is mapped.
    chunk = (column if column.num_chunks == 1 else column.combine_chunks()).dictionary_encode()
    chunk = chunk.chunk(0) if isinstance(chunk, pa.ChunkedArray) else chunk
    return np.asarray(chunk.indices), chunk.dictionary.to_pylist()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reopened(root: Path | str, index_sha256: str) -> ShardSet:
    """Open a set that another process has opened and checked."""
    manifest = _read_manifest(root)
    if manifest["index"]["sha256"] != index_sha256:
        raise SchemaError(
            f"{root} must be the set that was opened, got one that was written since; start again"
        )
    return ShardSet(root, manifest, _index(root, manifest))


def _index(root: Path | str, manifest: dict[str, Any]) -> pa.Table:
    return mapped_table(near(root, manifest["index"]), manifest["index"]["sha256"])


def _read_manifest(root: Path | str) -> dict[str, Any]:
    path = f"{root}/{MANIFEST}"
    text = content(root, MANIFEST)
    if text is None:
        raise SchemaError(
            f"{root} has no {MANIFEST}, so it is no finished set of shards; "
            "write it with `hypersigma-data shards STORE OUT`"
        )
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise SchemaError(f"{path} must be JSON: {error}; {_REDO}") from error
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != SCHEMA:
        raise SchemaError(f"{path} must have schema {SCHEMA!r}, got {found!r}; {_REDO}")
    if missing := _NEEDED - set(manifest):
        raise SchemaError(
            f"{path} must have {sorted(missing)}, got a set that an older release wrote; {_REDO}"
        )
    return dict(manifest)


def _check_file(place: Place, entry: dict[str, Any], size: int | None, *, compare: bool) -> None:
    path = f"{place}/{entry['name']}"
    if size != entry["bytes"]:
        got = "no file" if size is None else f"{size}"
        raise SchemaError(f"{path} must have {entry['bytes']} bytes, got {got}; {_REDO}")
    if compare and digest(place, entry["name"]) != entry["sha256"]:
        raise SchemaError(f"{path} does not have the manifest's sha256: damaged; {_REDO}")
