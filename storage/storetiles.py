"""Tiles of one version of a store, as shards are made from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from storage.columns import read_checksums
from storage.location import Location
from storage.nodes import array, subgroup
from storage.shardtiles import Tile
from storage.store import open_repository

type _Stored = tuple[np.ndarray | None, str, str]
"""Of a scene: its tiles' checksums (tile), their dtype, the digest of the whole."""

_READ_TILES = 16


@dataclass(frozen=True)
class Snapshot:
    """A version, to be opened by any process."""

    location: Location
    snapshot: str

    def open(self) -> "StoreTiles":
        """Return its tiles."""
        return StoreTiles(open_group(self.location, self.snapshot))


@dataclass(frozen=True)
class StoreTiles:
    """The tiles of an opened version."""

    group: zarr.Group

    def contents(self, records: list[dict[str, Any]]) -> Iterator[bytes]:
        scenes: dict[str, _Stored] = {}
        for record in records:
            name = record["scene_id"]
            if name not in scenes:
                scenes[name] = _stored(subgroup(self.group, f"scenes/{name}"))
            yield _content(*scenes[name], record["position"])

    def read(self, records: list[dict[str, Any]]) -> Iterator[Tile]:
        """Yield each tile, reading a few at a time."""
        scenes = [record["scene_id"] for record in records]
        start = 0
        while start < len(records):
            stop = start
            while stop < min(start + _READ_TILES, len(records)) and scenes[stop] == scenes[start]:
                stop += 1
            scene = subgroup(self.group, f"scenes/{scenes[start]}")
            positions = np.array([record["position"] for record in records[start:stop]])
            pixels, masks = (
                np.asarray(array(scene, name).oindex[positions]) for name in ("tiles", "valid")
            )
            yield from map(Tile, records[start:stop], pixels, masks)
            start = stop


def open_group(location: Location, snapshot: str) -> zarr.Group:
    """Open a snapshot of a store to read."""
    session = open_repository(location).readonly_session(snapshot_id=snapshot)
    return zarr.open_group(session.store, mode="r")


def _stored(scene: zarr.Group) -> _Stored:
    content = str(scene.attrs.get("content"))
    return read_checksums(scene), array(scene, "tiles").dtype.name, content


def _content(sums: np.ndarray | None, dtype: str, scene: str, position: int) -> bytes:
    if sums is not None and sums[position]:
        return f"{dtype} {int(sums[position]):016x}".encode()
    return f"{dtype} {scene} {position}".encode()  # a store of before tiles had checksums
