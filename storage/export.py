"""A version's index as tables that other tools read: one row a tile, one row a scene."""

import itertools
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from storage.footprints import bounds, geometry, outline, tile_corners, wkt
from storage.index import read_index
from storage.location import Location
from storage.nodes import subgroup
from storage.schema import SPLITS, SchemaError
from storage.store import find_version, open_repository
from storage.versions import Version

INDEX, SCENES = "index.parquet", "scenes.parquet"
ROWS = 2**16
"""Of a row group: some 5 MB, so that a condition on one scene or sensor skips most of a million."""

_SOURCES = pa.list_(
    pa.struct([("name", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])
)
SCENE_SCHEMA = pa.schema(
    [
        ("scene_id", pa.string()), ("sensor", pa.string()), ("platform", pa.string()),
        ("level", pa.string()), ("acquired", pa.timestamp("ms", tz="UTC")),
        ("sun_elevation", pa.float64()), ("sun_azimuth", pa.float64()),
        ("view_zenith", pa.float64()), ("crs", pa.string()), ("units", pa.string()),
        ("scale", pa.float64()), ("product", pa.string()), ("recipe_hash", pa.string()),
        ("content", pa.string()), ("tiles_in", pa.int64()), ("tiles_kept", pa.int64()),
        ("rejected", pa.map_(pa.string(), pa.int64())),
        *((split, pa.int64()) for split in SPLITS),
        ("west", pa.float64()), ("south", pa.float64()), ("east", pa.float64()),
        ("north", pa.float64()), ("footprint", pa.string()), ("footprint_of", pa.string()),
        ("sources", _SOURCES),
    ]
)  # fmt: skip
_PLAIN = ("sensor", "platform", "level", "crs", "units", "product", "content")
_NUMBERS = ("sun_elevation", "sun_azimuth", "view_zenith", "scale")


def write_parquet(
    location: Location, out: Path | str, version: str | None = None
) -> dict[str, Path]:
    """Write `index.parquet` and `scenes.parquet` of a version into the folder `out`.

    Both are zstd-compressed and sorted by scene; the schema's metadata name dataset, version,
    snapshot and recipe. Each file appears under its name when it is whole.

    Args:
        location: The store.
        out: A folder, made if it is not there.
        version: A tag, or None for the head.

    Returns:
        Their paths by name.

    Raises:
        SchemaError: No store or no such version.
    """
    chosen, group = pinned(location, version)
    tiles = tile_table(group)
    tables = {INDEX: tiles, SCENES: scene_table(group, tiles)}
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_table(table.replace_schema_metadata(origin(group, chosen)), folder / name)
    return {name: folder / name for name in tables}


def pinned(location: Location, version: str | None) -> tuple[Version, zarr.Group]:
    """Return a version and its opened group, of one and the same snapshot."""
    repo = open_repository(location)
    chosen = find_version(repo, version)
    session = repo.readonly_session(snapshot_id=chosen.snapshot)
    return chosen, zarr.open_group(session.store, mode="r")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet; nothing is at `path` before it is whole."""
    partial = path.with_name(f"{path.name}.tmp")
    pq.write_table(table, partial, compression="zstd", row_group_size=ROWS)
    os.replace(partial, path)


def tile_table(group: zarr.Group) -> pa.Table:
    """Return the index of an opened version, sorted by scene, row and column."""
    table = read_index(group)
    scene = table["scene_id"].combine_chunks()
    rank = np.argsort(np.argsort(scene.dictionary.to_numpy(zero_copy_only=False)))
    keys = (table["col"].to_numpy(), table["row"].to_numpy(), rank[scene.indices.to_numpy()])
    return table.take(np.lexsort(keys)) if len(table) else table


def scene_table(group: zarr.Group, tiles: pa.Table, *, places: bool = True) -> pa.Table:
    """Return one row a scene of an opened version: `SCENE_SCHEMA`, sorted by scene.

    `footprint` (WKT) and `west` to `north` [deg] enclose the scene's kept tiles, or their centres
    where a store has no outlines, as `footprint_of` says; null if no place is known. Angles [deg]
    are null if unknown.
    Reads the attributes of every scene, no pixels.

    Args:
        group: An opened version.
        tiles: Its `tile_table`.
        places: Whether to count the splits and find the places, too; else they are 0 and null.

    Raises:
        SchemaError: A scene's `acquired` is no time.
    """
    scenes = subgroup(group, "scenes")
    found = _places(tiles) if places else {}
    names = tiles["scene_id"].combine_chunks()
    # A scene of which no tile was kept has no rows: the index lists it all the same.
    rows = [_row(name, dict(subgroup(scenes, name).attrs), found.get(name, {}))
            for name in sorted(names.dictionary.to_pylist())]  # fmt: skip
    return pa.Table.from_pylist(rows, SCENE_SCHEMA)


def origin(group: zarr.Group, version: Version) -> dict[str, str]:
    """Return what a file made from a version says about where it is from."""
    return {
        "dataset": str(group.attrs["dataset"]),
        "version": version.tag,
        "snapshot": version.snapshot,
        "recipe_hash": version.recipe_hash,
        "code_version": version.code_version,
    }


def parse_time(scene_id: str, text: object) -> datetime:
    """Return a scene's `acquired` with its time zone, UTC if it names none.

    Raises:
        SchemaError: It is not ISO 8601.
    """
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise SchemaError(
            f"{scene_id}: acquired must be ISO 8601 such as 2003-05-06T10:13:51Z, got {text!r}; "
            "build the scene again from a product that says when it was taken"
        ) from error
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _row(scene_id: str, attrs: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, Any]:
    counts = attrs["counts"]
    return {
        "scene_id": scene_id,
        **{name: attrs.get(name) for name in (*_PLAIN, *_NUMBERS)},
        "acquired": parse_time(scene_id, attrs.get("acquired")),
        "recipe_hash": attrs.get("recipe_hash"),
        "tiles_in": counts["in"],
        "tiles_kept": counts["kept"],
        "rejected": sorted(counts["rejected"].items()),
        "sources": attrs["sources"],
        **dict.fromkeys(SPLITS, 0),
        **place,
    }


def _places(tiles: pa.Table) -> dict[str, dict[str, Any]]:
    """Return each scene's counts by split and where it lies."""
    found = {}
    scene = tiles["scene_id"].combine_chunks()
    split = np.asarray(tiles["split"].to_numpy())
    columns = {name: tiles[name].to_numpy() for name in tiles.column_names if name not in _TEXT}
    corners = tile_corners(columns)
    centres = np.column_stack([columns["lon"], columns["lat"]])
    for number, edge in _groups(scene.indices.to_numpy()):
        points = corners[edge].reshape(-1, 2)
        outlined = bool(np.isfinite(points).any())
        ring = outline(points if outlined else centres[edge])
        box = bounds(ring) or (None,) * 4
        found[scene.dictionary[number].as_py()] = {
            **{name: int((split[edge] == name).sum()) for name in SPLITS},
            **dict(zip(("west", "south", "east", "north"), box, strict=True)),
            "footprint": wkt(geometry(ring)),
            "footprint_of": ("tiles" if outlined else "centres") if len(ring) else None,
        }
    return found


_TEXT = ("tile_id", "scene_id", "sensor", "split")


def _groups(codes: np.ndarray) -> list[tuple[int, slice]]:
    """Return each run of equal codes."""
    if not codes.size:
        return []
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), codes.size]
    return [(int(codes[a]), slice(a, b)) for a, b in itertools.pairwise(edges)]
