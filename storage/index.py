"""The table of all tiles of a version: one 1-D array a column, read without touching any scene.

`/index/<column>` has one entry a tile, in the order in which scenes came into the store;
`/index/scenes/` has one entry a scene. Text is coded: `scene`, `sensor` and `split` are numbers
into the scenes' table and the lists in the group's attrs. A version that only adds scenes adds to
the columns' ends, and so writes their last chunks alone.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import zarr

from storage.nodes import append_column, read_column, subgroup, write_column
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

_SCENES = ("scene_id", "content", "source", "recipe", "product", "kept")
_TILE_CHUNK = 2**16
_SCENE_CHUNK = 2**12
"""Rows in one object: what a commit that adds a few writes anew."""


@dataclass(frozen=True)
class Index:
    """The columns as they are stored."""

    tiles: dict[str, np.ndarray]
    """One entry a tile: `_FIXED` and the quality columns."""

    scenes: dict[str, list[str]]
    """One entry a scene: what `scene_table` returns."""

    @property
    def scene_ids(self) -> list[str]:
        """The scenes, in their order."""
        return self.scenes["scene_id"]


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
    tiles = {str(name): read_column(node, str(name)) for name in sorted(node.array_keys())}
    if not tiles:
        return empty_index()
    lengths = {name: len(column) for name, column in tiles.items()}
    if len(set(lengths.values())) > 1 or not set(_FIXED) <= set(tiles):
        raise SchemaError(f"/index must have the columns {_FIXED} of one length, got {lengths}")
    tiles |= {name: _column(tiles, name) for name in _LATER}
    return Index(tiles, scene_table(group))


def scene_table(group: zarr.Group) -> dict[str, list[str]]:
    """Return the scenes of a version: one entry a scene in each column, all text.

    `scene_id`; `content`, sha256 of its pixels, masks and corners; `source`, digest of the files
    that it was made from; `recipe`, the hash of what it was made by; `product`, the name of its
    file or folder at the source; `kept`, its number of tiles. "" is unknown.
    """
    node = dict(subgroup(group, "index/scenes").arrays())
    columns = {name: np.asarray(node[name][:]).tolist() for name in _SCENES if name in node}
    unknown = [""] * len(columns.get("scene_id", ()))
    return {name: columns.get(name, unknown) for name in _SCENES}


def update_index(
    group: zarr.Group, stored: list[str], new: dict[str, SceneColumns], removed: set[str]
) -> tuple[dict[str, int], list[str]]:
    """Add scenes to the stored index, in the order of their names, and take others out of it.

    Args:
        group: The root of the session.
        stored: The scenes that the index has.
        new: By scene id, columns and attrs (see `scene_columns`); may replace scenes.
        removed: Scenes to take out.

    Returns:
        The number of tiles in each split and the scenes, afterwards.
    """
    node = subgroup(group, "index")
    if set(stored) & (removed | set(new)) or "splits" not in node.attrs:
        index = with_scenes(without_scenes(load_index(group), removed | set(new)), new)
        save_index(group, index)
        return _split_counts(index.tiles["split"]), index.scene_ids
    tiles, scenes = _entries(new, len(stored))
    columns = dict(node.arrays())
    before, count = columns["scene"].shape[0], len(tiles["scene"])
    for name in sorted(set(columns) | set(tiles)):
        if name in columns:
            append_column(columns[name], tiles.get(name, _unknown(count, name)))
        else:
            values = np.concatenate([_unknown(before, name), tiles[name]])
            write_column(node, name, values, "tile", _TILE_CHUNK)
    table = dict(subgroup(node, "scenes").arrays())
    for name, texts in scenes.items():
        append_column(table[name], np.array(texts, dtype="T"))
    added = _split_counts(tiles["split"])
    splits: Any = node.attrs["splits"]
    counts = {name: splits[name] + count for name, count in added.items()}
    node.attrs["splits"] = counts
    return counts, stored + scenes["scene_id"]


def save_index(group: zarr.Group, index: Index) -> None:
    """Write the index anew."""
    attrs = {**_codes(), "splits": _split_counts(index.tiles["split"])}
    node = group.create_group("index", overwrite=True, attributes=attrs)
    for name, column in sorted(index.tiles.items()):
        write_column(node, name, column, "tile", _TILE_CHUNK)
    scenes = node.create_group("scenes")
    for name, texts in index.scenes.items():
        write_column(scenes, name, np.array(texts, dtype="T"), "scene", _SCENE_CHUNK)


def empty_index() -> Index:
    """Return the index of a store without tiles."""
    tiles = {name: np.empty(0, kind) for name, kind in zip(_FIXED, _KINDS, strict=True)}
    tiles |= {name: _column(tiles, name) for name in _LATER}
    return Index(tiles, {name: [] for name in _SCENES})


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
    return Index(tiles, {name: [c[i] for i in kept] for name, c in index.scenes.items()})


def with_scenes(index: Index, scenes: dict[str, SceneColumns]) -> Index:
    """Return the index with scenes added at its end, in the order of their names.

    Args:
        index: The index so far.
        scenes: By scene id, the columns and the attrs that `scene_columns` returns. A quality
            column that a scene lacks is NaN there.
    """
    tiles, table = _entries(scenes, len(index.scene_ids))
    return Index(
        _stacked([index.tiles, tiles]), {name: index.scenes[name] + table[name] for name in _SCENES}
    )


def source_digest(sources: list[dict[str, Any]]) -> str:
    """Return one sha256 for the files that a scene was read from; their names do not count."""
    return hashlib.sha256("\n".join(sorted(s["sha256"] for s in sources)).encode()).hexdigest()


def _entries(
    scenes: dict[str, SceneColumns], start: int
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Return the rows of scenes, the first one number `start`, and their entries in the table."""
    order = sorted(scenes)
    parts = [{n: c[:0] for n, c in empty_index().tiles.items()}]
    table: dict[str, list[str]] = {name: [] for name in _SCENES}
    for number, scene_id in enumerate(order, start=start):
        columns, attrs = scenes[scene_id]
        parts.append(_rows(number, attrs["sensor"], columns))
        entry = {
            "scene_id": scene_id,
            "content": attrs["content"],
            "source": source_digest(attrs["sources"]),
            "recipe": attrs.get("recipe_hash", ""),
            "product": attrs.get("product", ""),
            "kept": str(len(columns["row"])),
        }
        for name, text in entry.items():
            table[name].append(text)
    return _stacked(parts), table


def _stacked(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    names = sorted(set().union(*parts))
    return {name: np.concatenate([_column(part, name) for part in parts]) for name in names}


def _split_counts(codes: np.ndarray) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(SPLITS)).tolist()
    return dict(zip(SPLITS, counts, strict=True))


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
    return part[name] if name in part else _unknown(len(part["row"]), name)


def _unknown(count: int, name: str) -> np.ndarray:
    return np.zeros(count, "u8") if name == PATTERN else np.full(count, np.nan, "f4")


def _coded(codes: np.ndarray, names: list[str] | tuple[str, ...]) -> pa.DictionaryArray:
    kind = "i4" if codes.dtype.itemsize > 1 else "i1"
    return pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(kind, copy=False)), pa.array(list(names), pa.string())
    )


def _codes() -> dict[str, Any]:
    return {"sensor": list(SENSORS), "split": list(SPLITS)}
