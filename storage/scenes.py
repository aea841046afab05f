"""One scene's group in the store: `/scenes/<scene_id>/`, written once and read lazily."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import icechunk
import numpy as np
import xarray as xr
import zarr
from zarr.core.metadata import ArrayV3Metadata

from storage.nodes import PIXEL_CODEC, plain, read_column, subgroup, write_column
from storage.schema import PLACE_COORDS, SchemaError, check_scene_id, check_tiles, tile_id

type SceneColumns = tuple[dict[str, np.ndarray], dict[str, Any]]
"""A scene's columns on `tile`, and its attrs."""

BATCH_TILES = 64
SHARD_BYTES = 64 * 2**20
"""A shard (one object) is one written batch, so that none is read back to add to it."""

_UNKNOWN_IS_NAN = ("sun_elevation", "sun_azimuth", "view_zenith")


def write_scene(session: icechunk.Session, tiles: xr.Dataset) -> int:
    """Write one scene's tiles to a forked session; nothing is visible before the commit.

    Computes a batch of at most 64 tiles at a time, under the caller's Dask configuration, each
    of its chunks once; plain NumPy is taken as it is. A scene that is there already is replaced.

    Args:
        session: A fork of the session from `begin`; one fork serves one scene at a time.
        tiles: What `check_tiles` describes.

    Returns:
        The number of tiles written.

    Raises:
        SchemaError: `tiles` is not what `check_tiles` wants.
    """
    check_tiles(tiles)
    scenes = subgroup(zarr.open_group(session.store, mode="r+"), "scenes")
    group = scenes.create_group(tiles.attrs["scene_id"], overwrite=True)
    for name, coord in tiles.coords.items():
        if coord.dims in (("band",), ("tile",)) and name not in ("tile", "tile_id"):
            write_column(group, str(name), _column(str(name), coord), str(coord.dims[0]))
    scene_id = tiles.attrs["scene_id"]
    corners = zip(tiles.row.values.tolist(), tiles.col.values.tolist(), strict=True)
    names = np.array([tile_id(scene_id, row, col) for row, col in corners], dtype="U")
    write_column(group, "tile_id", names, "tile")
    digest = hashlib.sha256(tiles.row.values.astype("<i4").tobytes())
    digest.update(tiles.col.values.astype("<i4").tobytes())
    for part in _write_pixels(group, tiles):
        digest.update(part)
    # Last, so that a group without `content` is known to be unfinished.
    group.attrs.update(plain({**tiles.attrs, "content": digest.hexdigest()}))
    return tiles.sizes["tile"]


def scene_dataset(group: zarr.Group, scene_id: str) -> xr.Dataset:
    """Return one scene of an opened version, its pixels lazy: a tile is read when it is indexed.

    Args:
        group: What `open_version` returned.
        scene_id: One of the version's scenes.

    Returns:
        What was written, with `tile_id` (tile) added; `sun_*` and `view_zenith` NaN if unknown.

    Raises:
        SchemaError: The version has no such scene.
    """
    path = f"scenes/{check_scene_id(scene_id)}"
    if path not in group:
        raise SchemaError(f"{scene_id} is not in this version; `read_index` lists its scenes")
    scene: xr.Dataset = xr.open_zarr(
        group.store,
        group=path,
        consolidated=False,
        chunks=None,
        mask_and_scale=False,
        decode_times=False,
    )
    columns = [name for name in scene.variables if name not in ("tiles", "valid")]
    scene = scene.set_coords(columns)
    for name in ("split", "detector"):
        scene[name] = (scene[name].dims, np.array(scene[name].values.tolist(), dtype="U"))
    corners = zip(scene.row.values.tolist(), scene.col.values.tolist(), strict=True)
    names = np.array([tile_id(scene_id, row, col) for row, col in corners], dtype="U")
    unknown = {k: math.nan for k in _UNKNOWN_IS_NAN if scene.attrs.get(k, 0.0) is None}
    return scene.assign_coords(tile_id=("tile", names)).assign_attrs(unknown)


def scene_columns(group: zarr.Group, scene_id: str) -> SceneColumns:
    """Return the columns on `tile` and the attrs of a scene that was written to its end.

    Raises:
        SchemaError: The scene is not complete.
    """
    scene = subgroup(group, f"scenes/{scene_id}")
    attrs = dict(scene.attrs)
    if "content" not in attrs:
        raise SchemaError(
            f"{scene_id} was not written to its end; leave the fork of a failed writer out"
        )
    names = [str(name) for name, node in scene.arrays() if _dims(node) == ("tile",)]
    # Tile ids follow from scene, row and column: the index does without them.
    return {name: read_column(scene, name) for name in names if name != "tile_id"}, attrs


def _dims(node: zarr.Array[Any]) -> tuple[str | None, ...] | None:
    metadata = node.metadata
    return metadata.dimension_names if isinstance(metadata, ArrayV3Metadata) else None


def _column(name: str, coord: xr.DataArray) -> np.ndarray:
    kinds = dict(zip(PLACE_COORDS, ("i4", "i4", "f8", "f8", "U"), strict=True))
    dtype = kinds.get(name, "f4") if coord.dims == ("tile",) else coord.dtype
    return np.asarray(coord.values).astype(dtype)


def _write_pixels(group: zarr.Group, tiles: xr.Dataset) -> Iterator[np.ndarray]:
    """Write `tiles` and `valid` shard by shard; yield the bytes that were written."""
    count, *shape = tiles.tiles.shape
    dtype = tiles.tiles.dtype.newbyteorder("<")
    tile_bytes = math.prod(shape) * dtype.itemsize
    step = max(1, min(BATCH_TILES, SHARD_BYTES // tile_bytes, count))
    pixels = group.create_array(
        "tiles",
        shape=(count, *shape),
        dtype=dtype,
        chunks=(1, *shape),
        shards=(step, *shape),
        compressors=PIXEL_CODEC,
        fill_value=0,
        dimension_names=("tile", "band", "y", "x"),
    )
    valid = group.create_array(
        "valid",
        shape=(count, *shape[1:]),
        dtype=bool,
        chunks=(step, *shape[1:]),
        compressors=PIXEL_CODEC,
        fill_value=False,
        dimension_names=("tile", "y", "x"),
    )
    start = 0
    for values, mask in _shards(tiles, step, dtype):
        stop = start + len(values)
        pixels[start:stop] = values
        valid[start:stop] = mask
        start = stop
        yield values
        yield mask


def _shards(
    tiles: xr.Dataset, step: int, dtype: np.dtype[Any]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `step` tiles and masks at a time, computing each chunk once whatever its size.

    What was yielded is overwritten by the next.
    """
    values = np.empty((step, *tiles.tiles.shape[1:]), dtype)
    masks = np.empty((step, *tiles.valid.shape[1:]), bool)
    full = 0
    for part in _batches(tiles, step):
        batch = tiles[["tiles", "valid"]].isel(tile=part).compute()
        pixels, valid = batch.tiles.values, batch.valid.values
        while len(pixels):
            room = slice(full, min(step, full + len(pixels)))
            fits = room.stop - full
            values[room], masks[room] = pixels[:fits], valid[:fits]
            pixels, valid, full = pixels[fits:], valid[fits:], room.stop
            if full == step:
                yield values, masks
                full = 0
    if full:
        yield values[:full], masks[:full]


def _batches(tiles: xr.Dataset, limit: int) -> Iterator[slice]:
    """Yield runs of whole Dask chunks of at most `limit` tiles; a larger chunk is cut."""
    sizes = tiles.tiles.chunksizes.get("tile", (tiles.sizes["tile"],))
    start = stop = 0
    for size in sizes:
        if stop > start and stop + size - start > limit:
            yield slice(start, stop)
            start = stop
        stop += size
        while stop - start > limit:
            yield slice(start, start + limit)
            start += limit
    if stop > start:
        yield slice(start, stop)
