"""One shard: taken as it is from a run before or another set, or made; then read again."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from storage.columns import read_checksums
from storage.frames import SUFFIX, cast, checksum, compress, described
from storage.labels import Labels, label_digest, tile_label
from storage.location import Location
from storage.moments import Moments, merge, no_moments, tile_moments, whole_moments
from storage.nodes import array, subgroup
from storage.places import Place, digest
from storage.schema import SchemaError
from storage.shardplan import Task, meta_bytes
from storage.shardrecords import Columns, Finished, load_record, save_record
from storage.store import open_repository
from storage.tar import TarWriter, npy_header

type _Stored = tuple[np.ndarray | None, str, str]
"""Of a scene: its tiles' checksums (tile), their dtype, the digest of the whole."""

_READ_TILES = 16
_FORMAT = 1
"""Of members and their order: another number makes all shards unlike those of before."""


@dataclass(frozen=True)
class Work:
    """What all shards of a set are made from; goes to other processes."""

    location: Location
    snapshot: str
    place: Place
    dtype: str | None
    codec: str
    labels: Labels | None
    before: Place | None = None
    """Another set, that shards may be taken from."""
    kept: dict[str, dict[str, Any]] | None = None
    """Its manifest's entries, by content."""


@dataclass(frozen=True)
class Done:
    """What came of a task."""

    name: str
    samples: int
    taken: dict[str, Any] | None = None
    """The other set's entry; whoever has its index and checksums writes the record."""
    labels: bytes = b""
    """sha256 of each tile's label, 32 bytes each, for that record."""


def open_group(location: Location, snapshot: str) -> zarr.Group:
    """Open a snapshot of a store to read."""
    session = open_repository(location).readonly_session(snapshot_id=snapshot)
    return zarr.open_group(session.store, mode="r")


def finish_shard(work: Work, group: zarr.Group, task: Task) -> Done:
    """See that a shard is there and whole, and so is its record.

    A record of before stands if it is of the same content and the shard's bytes are still those
    that it tells of.

    Raises:
        SchemaError: What is on the disk is not what was written.
    """
    labels = _labels(work, task)
    content = _content(work, group, task, labels)
    record = load_record(work.place, task.name)
    done = Done(task.name, len(task.records))
    if (
        record is not None
        and record.entry["content"] == content
        and _is_whole(work.place, task.name, record.entry)
    ):
        return done
    entry = (work.kept or {}).get(content)
    if work.before is not None and entry is not None and _is_whole_there(work, entry):
        work.place.take(task.name, work.before, entry["name"])
        if _is_whole(work.place, task.name, entry):
            return Done(task.name, len(task.records), entry, labels.tobytes())
    made = _write(work, group, task, content, labels)
    if not _is_whole(work.place, task.name, made.entry):
        raise SchemaError(
            f"{work.place}/{task.name} was written with sha256 {made.entry['sha256']}, and has "
            "another when it is read again; the disk or the memory is faulty, or another process "
            "writes there: see to that, and write the set again"
        )
    save_record(work.place, made)
    return done


def shard_entry(task_name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest's entry of a shard: its name, then bytes, sha256, samples and content."""
    split, file = task_name.split("/")
    entry = {"name": task_name, "split": split, "sensor": file.rpartition("-")[0]}
    return {**entry, **{key: found[key] for key in ("bytes", "sha256", "samples", "content")}}


def label_digests(labels: Labels, records: list[dict[str, Any]]) -> np.ndarray:
    """Return the sha256 of each tile's label (tile, 32), uint8; zeros without."""
    return _digests([_label(labels, record) for record in records])


def _label(labels: Labels, record: dict[str, Any]) -> np.ndarray | None:
    return tile_label(labels, record["scene_id"], record["row"], record["col"])


def _digests(labels: list[np.ndarray | None]) -> np.ndarray:
    joined = b"".join(label_digest(label) for label in labels)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def _labels(work: Work, task: Task) -> np.ndarray:
    if work.labels is None:
        return np.zeros((len(task.records), 32), np.uint8)
    return label_digests(work.labels, task.records)


def _content(work: Work, group: zarr.Group, task: Task, labels: np.ndarray) -> str:
    """Return a sha256 of all that a shard's bytes follow from."""
    options = {"format": _FORMAT, "dtype": work.dtype, **described(work.codec)}
    found = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    scenes: dict[str, _Stored] = {}
    for record, label in zip(task.records, labels, strict=True):
        name = record["scene_id"]
        if name not in scenes:
            scenes[name] = _stored(subgroup(group, f"scenes/{name}"))
        tile = _tile_content(*scenes[name], record["position"])
        for part in (meta_bytes(record), tile, label.tobytes()):
            found.update(len(part).to_bytes(8, "little"))
            found.update(part)
    return found.hexdigest()


def _stored(scene: zarr.Group) -> _Stored:
    content = str(scene.attrs.get("content"))
    return read_checksums(scene), array(scene, "tiles").dtype.name, content


def _tile_content(sums: np.ndarray | None, dtype: str, scene: str, position: int) -> bytes:
    """Return what tells a tile's stored pixels and mask from others."""
    if sums is not None and sums[position]:
        return f"{dtype} {int(sums[position]):016x}".encode()
    return f"{dtype} {scene} {position}".encode()  # a store of before tiles had checksums


def _is_whole(place: Place, name: str, entry: dict[str, Any]) -> bool:
    if place.size(name) != entry["bytes"]:
        return False
    return bool(digest(place, name, cold=True) == entry["sha256"])


def _is_whole_there(work: Work, entry: dict[str, Any]) -> bool:
    # Whether its bytes are right is asked of what was taken: so they are read once.
    return work.before is not None and work.before.size(entry["name"]) == entry["bytes"]


def _write(work: Work, group: zarr.Group, task: Task, content: str, labels: np.ndarray) -> Finished:
    rows: list[tuple[int, int, int]] = []
    checksums: list[list[int]] = []
    masks: list[np.ndarray] = []
    sums = _Sums()
    with work.place.writing(task.name) as sink, TarWriter(sink) as tar:
        for record, tile, valid in _tiles(group, task.records):
            sums.add(tile, valid)
            masks.append(np.packbits(valid))
            rows.append(_add_tile(tar, work, record, tile, checksums))
    found = {"bytes": sink.bytes, "sha256": sink.sha256}
    entry = shard_entry(task.name, {**found, "samples": len(task.records), "content": content})
    offset, length, label_offset = np.array(rows, np.int64).T
    columns = Columns(
        offset=offset,
        length=length,
        label_offset=label_offset,
        checksums=np.array(checksums, np.uint32),
        masks=np.array(masks),
        labels=labels,
        moments=sums.moments(),
    )
    return Finished(entry, columns)


def _add_tile(
    tar: TarWriter,
    work: Work,
    record: dict[str, Any],
    tile: np.ndarray,
    checksums: list[list[int]],
) -> tuple[int, int, int]:
    """Append a tile's members; return offset and length of its payload and offset of its label."""
    name = record["tile_id"]
    stored = cast(tile, work.dtype, name)
    if work.codec == "none":
        checksums.append([checksum(band) for band in stored])
        span = tar.add_array(f"{name}.tile.npy", stored)
    else:
        frame = compress(npy_header(stored) + stored.tobytes(), work.codec)
        checksums.append([checksum(frame)])
        span = tar.add_bytes(f"{name}.tile.npy{SUFFIX[work.codec]}", frame)
    label = None if work.labels is None else _label(work.labels, record)
    at = -1 if label is None else tar.add_array(f"{name}.label.npy", label).offset
    tar.add_bytes(f"{name}.meta.json", meta_bytes(record))
    return span.offset, span.length, at


def _tiles(
    group: zarr.Group, records: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """Yield each tile's row, pixels (band, y, x) and mask (y, x), reading a few at a time."""
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


class _Sums:
    """Moments of the tiles that went by: of integers exact, whatever their number."""

    def __init__(self) -> None:
        self._integers: np.ndarray | None = None
        self._floats: Moments | None = None

    def add(self, tile: np.ndarray, valid: np.ndarray) -> None:
        if tile.dtype.kind == "i":
            found = whole_moments(tile, valid)
            self._integers = found if self._integers is None else self._integers + found
        else:
            so_far = self._floats or no_moments(len(tile))
            self._floats = merge(so_far, tile_moments(tile, valid))

    def moments(self) -> np.ndarray:
        """Return count, mean and sum of squared deviations (3, band), float64."""
        if self._integers is not None:
            bands = [
                (n, s / n if n else 0.0, (n * q - s * s) / n if n else 0.0)
                for n, s, q in self._integers.T.tolist()  # Python's integers: none is too large
            ]
            return np.array(bands, np.float64).T
        if self._floats is None:
            raise ValueError("a shard must have tiles")
        found = self._floats
        return np.stack([found.count.astype(np.float64), found.mean, found.squares])
