"""The table of all tiles of a version: one 1-D array a column, read without touching any scene.

`/index/<column>` has one entry a tile, in the order in which scenes came into the store;
`/index/scenes/` has one entry a scene. Text is coded: `scene`, `sensor` and `split` are numbers
into the scenes' table and the lists in the group's attrs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import zarr

from storage.nodes import read_column, subgroup, write_column
from storage.scenes import SceneColumns
from storage.schema import (
    FOOTPRINT_COORDS,
    PATTERN,
    PLACE_COORDS,
    SENSORS,
    SPLITS,
    SchemaError,
    split_codes,
    tile_id,
)

_FIXED = ("scene", "sensor", "split", "row", "col", "lon", "lat", "position")
_KINDS = ("i4", "u1", "u1", "i4", "i4", "f8", "f8", "i4")
_NAMES = 2**14
_LATER = (*FOOTPRINT_COORDS, PATTERN)
"""Columns that a store of before they were made has not: NaN and 0 there."""


@dataclass(frozen=True)
class Index:
    """The columns as they are stored."""

    tiles: dict[str, np.ndarray]
    """One entry a tile: `_FIXED` and the quality columns."""

    scene_ids: list[str]
    content: list[str]
    """sha256 of each scene's pixels, masks and corners."""


def read_index(group: zarr.Group) -> pa.Table:
    """Return one row a tile of an opened version.

    Columns: tile_id, scene_id, sensor, split, row, col, lon, lat [deg, NaN if unknown], position
    (the tile's number inside its scene), `FOOTPRINT_COORDS` [m, NaN if unknown], pattern (0 for
    none), then the quality columns. Reads no scene's group.
    """
    index = load_index(group)
    tiles = index.tiles
    quality = sorted(set(tiles) - {*_FIXED, *_LATER})
    return pa.table(
        {
            "tile_id": _tile_ids(index),
            "scene_id": _coded(tiles["scene"], index.scene_ids),
            "sensor": _coded(tiles["sensor"], SENSORS),
            "split": _coded(tiles["split"], SPLITS),
            **{name: tiles[name] for name in ("row", "col", "lon", "lat", "position")},
            **{name: tiles[name] for name in (*_LATER, *quality)},
        }
    )


def load_index(group: zarr.Group) -> Index:
    """Read the index of a version, empty for a store that has none yet.

    Raises:
        SchemaError: Its columns are not equally long.
    """
    node = subgroup(group, "index")
    scenes = subgroup(node, "scenes")
    tiles = {str(name): read_column(node, str(name)) for name in sorted(node.array_keys())}
    lengths = {name: len(column) for name, column in tiles.items()}
    if len(set(lengths.values())) > 1 or not set(_FIXED) <= set(tiles):
        raise SchemaError(f"/index must have the columns {_FIXED} of one length, got {lengths}")
    tiles |= {name: _column(tiles, name) for name in _LATER}
    scene_ids, content = (read_column(scenes, name).tolist() for name in ("scene_id", "content"))
    return Index(tiles, scene_ids, content)


def save_index(group: zarr.Group, index: Index) -> None:
    """Write the index anew."""
    node = group.create_group("index", overwrite=True, attributes=_codes())
    for name, column in sorted(index.tiles.items()):
        write_column(node, name, column, "tile")
    scenes = node.create_group("scenes")
    for name, texts in (("scene_id", index.scene_ids), ("content", index.content)):
        write_column(scenes, name, np.array(texts, dtype="T"), "scene")


def empty_index() -> Index:
    """Return the index of a store without tiles."""
    tiles = {name: np.empty(0, kind) for name, kind in zip(_FIXED, _KINDS, strict=True)}
    return Index(tiles | {name: _column(tiles, name) for name in _LATER}, [], [])


def without_scenes(index: Index, scene_ids: set[str]) -> Index:
    """Return the index without some scenes; the order of the others stays."""
    keep = np.array([name not in scene_ids for name in index.scene_ids], dtype=bool)
    if keep.all():
        return index
    number = np.cumsum(keep) - 1
    rows = keep[index.tiles["scene"]]
    tiles = {name: column[rows] for name, column in index.tiles.items()}
    tiles["scene"] = number[tiles["scene"]].astype("i4")
    kept = np.flatnonzero(keep).tolist()
    return Index(tiles, [index.scene_ids[i] for i in kept], [index.content[i] for i in kept])


def with_scenes(index: Index, scenes: dict[str, SceneColumns]) -> Index:
    """Return the index with scenes added at its end, in the order of their names.

    Args:
        index: The index so far.
        scenes: By scene id, the columns and the attrs that `scene_columns` returns. A quality
            column that a scene lacks is NaN there.
    """
    order = sorted(scenes)
    parts = [index.tiles]
    for number, scene_id in enumerate(order, start=len(index.scene_ids)):
        columns, attrs = scenes[scene_id]
        parts.append(_rows(number, attrs["sensor"], columns))
    names = sorted(set().union(*parts))
    tiles = {name: np.concatenate([_column(part, name) for part in parts]) for name in names}
    content = [scenes[name][1]["content"] for name in order]
    return Index(tiles, index.scene_ids + order, index.content + content)


def _tile_ids(index: Index) -> pa.ChunkedArray:
    """Return the tiles' names, some at a time.

    Arrow's own functions on text would be twice as fast, and take 60 MB more.
    """
    parts = []
    for start in range(0, len(index.tiles["scene"]), _NAMES):
        here = slice(start, start + _NAMES)
        scene, row, col = (index.tiles[name][here].tolist() for name in ("scene", "row", "col"))
        names = [
            tile_id(index.scene_ids[number], r, c)
            for number, r, c in zip(scene, row, col, strict=True)
        ]
        parts.append(pa.array(names, pa.large_string(), memory_pool=pa.system_memory_pool()))
    return pa.chunked_array(parts, pa.large_string())


def _rows(number: int, sensor: str, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    count = len(columns["row"])
    return {
        "scene": np.full(count, number, "i4"),
        "sensor": np.full(count, SENSORS.index(sensor), "u1"),
        "split": split_codes(columns["split"]),
        "position": np.arange(count, dtype="i4"),
        **{name: columns[name] for name in PLACE_COORDS if name != "split"},
        **{name: c for name, c in columns.items() if name not in (*_FIXED, *PLACE_COORDS)},
    }


def _column(part: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name in part:
        return part[name]
    count = len(part["row"])
    return np.zeros(count, "u8") if name == PATTERN else np.full(count, np.nan, "f4")


def _coded(codes: np.ndarray, names: list[str] | tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(codes.astype("i4", copy=False)), pa.array(list(names), pa.string())
    )


def _codes() -> dict[str, Any]:
    return {"sensor": list(SENSORS), "split": list(SPLITS)}
