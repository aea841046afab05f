"""One scene's group in the store: `/scenes/<scene_id>/`, written once and read lazily."""

import hashlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import zarr

from storage.chunks import BATCH_TILES, computed
from storage.columns import apart, read_columns, write_columns
from storage.nodes import PIXEL_CODEC, plain, subgroup
from storage.patterns import patterns
from storage.schema import (
    CHECKSUM,
    PATTERN,
    SchemaError,
    check_scene_id,
    check_tiles,
    split_codes,
    tile_id,
)
from storage.sketches import SceneSketch
from storage.statistics import SKETCH, write_sketch

if TYPE_CHECKING:
    import xarray as xr

type SceneColumns = tuple[dict[str, np.ndarray], dict[str, Any]]
"""A scene's columns on `tile`, and its attrs."""

SHARD_BYTES = 64 * 2**20
"""A shard (one object) is one written batch, so that none is read back to add to it."""

_KINDS = {"row": "i4", "col": "i4", "lon": "f8", "lat": "f8", "split": "U"}
_UNKNOWN_IS_NAN = ("sun_elevation", "sun_azimuth", "view_zenith")


def write_scene(session: icechunk.Session, tiles: "xr.Dataset") -> dict[str, Any]:
    """Write one scene's tiles to a forked session; nothing is visible before the commit.

    Computes the chunks of tiles in their order, each once and small ones two at a time, in threads
    of this process, while another encodes what came before; plain NumPy is taken as it is. Tiles
    with a `reason` are counted and left out. A scene that is there already is replaced.

    Args:
        session: A fork of the session from `begin`; one fork serves one scene at a time.
        tiles: What `check_tiles` describes.

    Returns:
        The scene's counts of tiles: `in` = `kept` + `rejected` by reason.

    Raises:
        SchemaError: `tiles` is not what `check_tiles` wants.
    """
    check_tiles(tiles)
    scenes = subgroup(zarr.open_group(session.store, mode="r+"), "scenes")
    scene_id = tiles.attrs["scene_id"]
    group = scenes.create_group(scene_id, overwrite=True)
    bands = {str(n): np.asarray(c.values) for n, c in tiles.coords.items() if c.dims == ("band",)}
    write_columns(group, "band", bands)
    kept = Kept(tiles)
    found = _write_pixels(group, tiles, kept)
    write_sketch(group, found.sketch)
    columns = {**kept.columns(), PATTERN: np.concatenate(found.patterns)}
    corners = zip(columns["row"].tolist(), columns["col"].tolist(), strict=True)
    names = np.array([tile_id(scene_id, row, col) for row, col in corners], dtype="U")
    checksum = np.array([int.from_bytes(each[:8]) for each in found.digests], "u8")
    write_columns(group, "tile", {**columns, "tile_id": names, CHECKSUM: checksum})
    digest = hashlib.sha256(b"".join(found.digests))
    for place in ("row", "col"):
        digest.update(columns[place].astype("<i4").tobytes())
    # Last, so that a group without `content` is known to be unfinished.
    attrs = {**tiles.attrs, "counts": kept.counts, "content": digest.hexdigest()}
    group.attrs.update(plain(attrs))
    return kept.counts


class Kept:
    """The tiles of a scene that have no `reason`, chunk by chunk: iterate once, then ask.

    Args:
        tiles: What `check_tiles` describes.
    """

    def __init__(self, tiles: "xr.Dataset") -> None:
        self._tiles = tiles
        self._parts: list[xr.Dataset] = []
        rejected = tiles.attrs["counts"]["rejected"]
        self.counts = {"in": tiles.attrs["counts"]["in"], "kept": 0, "rejected": dict(rejected)}
        """Complete when all was iterated."""

    def __iter__(self) -> "Iterator[xr.Dataset]":
        """Yield the kept tiles of one chunk after the other, computed."""
        for batch in computed(self._tiles):
            if "reason" in batch:
                reason = batch.reason.values
                for name, count in zip(*np.unique(reason, return_counts=True), strict=True):
                    if name:
                        rejected = self.counts["rejected"]
                        rejected[str(name)] = rejected.get(str(name), 0) + int(count)
                batch = batch.drop_vars("reason").isel(tile=np.flatnonzero(reason == ""))
            self.counts["kept"] += batch.sizes["tile"]
            self._parts.append(batch.drop_vars(("tiles", "valid")))
            yield batch

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns on `tile` of what was yielded, as they are stored."""
        names = [str(n) for n, c in self._tiles.coords.items() if c.dims == ("tile",)]
        parts = self._parts or [self._tiles.isel(tile=slice(0)).compute()]
        return {
            name: np.concatenate([_column(name, part[name]) for part in parts])
            for name in names
            if name not in ("tile", "tile_id")
        }


def kept_tiles(tiles: "xr.Dataset") -> "xr.Dataset":
    """Return the tiles of a scene that have no `reason`, all of them in memory, and the counts."""
    import xarray as xr

    kept = Kept(tiles)
    parts = list(kept) or [tiles.drop_vars("reason", errors="ignore").isel(tile=slice(0)).compute()]
    together = xr.concat(parts, dim="tile", data_vars="minimal", coords="minimal",
                         compat="override", join="exact", combine_attrs="override")  # fmt: skip
    return together.assign_attrs(counts=kept.counts)


def scene_dataset(group: zarr.Group, scene_id: str) -> "xr.Dataset":
    """Return one scene of an opened version, its pixels lazy: a tile is read when it is indexed.

    Args:
        group: What `open_version` returned.
        scene_id: One of the version's scenes.

    Returns:
        What was written, with `tile_id`, `pattern` and `checksum` (tile) added; `sun_*` and
        `view_zenith` NaN if unknown.

    Raises:
        SchemaError: The version has no such scene.
    """
    # 50 MB and most of a second that a reader of the index does not need.
    import xarray as xr

    path = f"scenes/{check_scene_id(scene_id)}"
    if path not in group:
        raise SchemaError(f"{scene_id} is not in this version; `read_index` lists its scenes")
    scene: xr.Dataset = xr.open_zarr(
        group.store,
        group=path,
        consolidated=False,
        drop_variables=list(SKETCH),
        chunks=None,
        mask_and_scale=False,
        decode_times=False,
    )
    columns = [name for name in scene.variables if name not in ("tiles", "valid")]
    scene = apart(scene.set_coords(columns))
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
    columns = read_columns(scene, "tile")
    # Tile ids follow from scene, row and column, checksums are for `diff`: no part of the index.
    return {n: c for n, c in columns.items() if n not in ("tile_id", CHECKSUM)}, attrs


def _column(name: str, coord: "xr.DataArray") -> np.ndarray:
    dtype = _KINDS.get(name, "f4") if coord.dims == ("tile",) else coord.dtype
    return np.asarray(coord.values).astype(dtype)


class _Seen:
    """What is made of pixels while they are written, in the order of the tiles."""

    def __init__(self, tiles: "xr.Dataset") -> None:
        self.sketch = SceneSketch(tiles.sizes["band"], tiles.tiles.dtype, tiles.attrs["units"])
        self.patterns = [np.empty(0, np.uint64)]
        self.digests: list[bytes] = []
        """Of each tile's pixels and mask."""

    def add(self, values: np.ndarray, mask: np.ndarray, split: np.ndarray) -> None:
        for tile, valid in zip(values, mask, strict=True):
            digest = hashlib.sha256(tile)
            digest.update(valid)
            self.digests.append(digest.digest())
        self.sketch.add(values, mask, split)
        self.patterns.append(patterns(values, mask))


def _write_pixels(group: zarr.Group, tiles: "xr.Dataset", kept: Kept) -> _Seen:
    """Write `tiles` and `valid` shard by shard; return what was seen of them."""
    count, *shape = tiles.tiles.shape
    dtype = tiles.tiles.dtype.newbyteorder("<")
    step = max(1, min(BATCH_TILES, SHARD_BYTES // (math.prod(shape) * dtype.itemsize), count))
    pixels, valid = _create_arrays(group, (count, *shape), dtype, step)
    seen = _Seen(tiles)

    def write(start: int, values: np.ndarray, mask: np.ndarray, split: np.ndarray) -> None:
        stop = start + len(values)
        pixels[start:stop] = values
        valid[start:stop] = mask
        seen.add(values, mask, split)

    start = 0
    with ThreadPoolExecutor(1, "encode") as encoder:
        writing = None
        for batch in _shards(kept, (step, *shape), dtype):
            if writing is not None:
                writing.result()
            writing = encoder.submit(write, start, *batch)
            start += len(batch[0])
        if writing is not None:
            writing.result()
    pixels.resize((start, *shape))
    valid.resize((start, *shape[1:]))
    return seen


def _create_arrays(
    group: zarr.Group, shape: tuple[int, ...], dtype: np.dtype[Any], step: int
) -> tuple[zarr.Array[Any], zarr.Array[Any]]:
    """Return new `tiles` of `shape`, `step` tiles a shard, and `valid`."""
    pixels = group.create_array(
        "tiles",
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
        shards=(step, *shape[1:]),
        compressors=PIXEL_CODEC,
        fill_value=0,
        dimension_names=("tile", "band", "y", "x"),
    )
    valid = group.create_array(
        "valid",
        shape=(shape[0], *shape[2:]),
        dtype=bool,
        chunks=(step, *shape[2:]),
        compressors=PIXEL_CODEC,
        fill_value=False,
        dimension_names=("tile", "y", "x"),
    )
    return pixels, valid


def _shards(
    kept: Kept, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield `shape[0]` tiles, masks and splits' numbers at a time.

    What was yielded lasts until the next but one.
    """
    step = shape[0]
    kinds = ((shape, dtype), ((step, *shape[2:]), bool), (step, np.uint8))
    buffers = [tuple(np.empty(*kind) for kind in kinds) for _ in range(2)]
    full = 0
    for batch in kept:
        new = batch.tiles.values, batch.valid.values, split_codes(batch.split.values)
        while len(new[0]):
            room = slice(full, min(step, full + len(new[0])))
            fits = room.stop - full
            for buffer, part in zip(buffers[0], new, strict=True):
                buffer[room] = part[:fits]
            new, full = (new[0][fits:], new[1][fits:], new[2][fits:]), room.stop
            if full == step:
                values, masks, split = buffers[0]
                yield values, masks, split
                buffers.reverse()
                full = 0
    if full:
        values, masks, split = buffers[0]
        yield values[:full], masks[:full], split[:full]
