"""A scene cut into tiles, with the rule which to keep."""

from collections.abc import Callable

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from pipeline.geolocation import Floats, lonlat
from storage.schema import TILE_SIZE, SceneError, SchemaError

Assign = Callable[[Floats, Floats], NDArray[np.str_]]
"""Corner lon, lat (tile, 4) [deg] -> a split's name, or "" for a tile between two."""

_VARIABLES = {"reflectance": "1", "radiance": "W m-2 sr-1 um-1", "dn": "DN"}
"""What is cut into tiles, the first that is there, and its unit."""
_SIDE = (TILE_SIZE, TILE_SIZE)
_INT16_MAX = 32767


def tile(
    scene: xr.Dataset,
    assign: Assign,
    *,
    stride: int = TILE_SIZE,
    min_valid: float = 0.9,
    edges: bool = False,
) -> xr.Dataset:
    """Cut a scene into 64 x 64 tiles and keep those with data that lie in one split.

    Computes `valid` and the number of dead bands per pixel, in one pass that keeps 3 byte a
    pixel; the pixels stay lazy. Windows begin at multiples of `stride`; what is left at the right
    and bottom edge and does not fill a window is no candidate, unless `edges`.

    Args:
        scene: `reflectance`, `radiance` or else `dn` (band, y, x); `valid` (y, x), `dead`
            (band, y, x).
        assign: Gives each tile its split by its corners.
        stride: Pixels from one window to the next.
        min_valid: Smallest share of valid pixels in a kept tile [1].
        edges: Add windows that end at the right and bottom edge and overlap the last ones, so
            that every pixel is in one: for maps, not for training.

    Returns:
        `tiles` (tile, band, y, x), int16 (DN, as they are) or float32; `valid` (tile, y, x).
        Coords on tile: `row`, `col` (its corner in the scene's grid), `lon`, `lat` [deg] (its
        centre), `split`, `valid_fraction`, `dead_fraction` [1]. attrs: the scene's, `units`,
        `scale` (value = stored / scale), `shape` (rows, columns of the source), `counts`: in =
        kept + rejected, by the first reason of `nodata` (below `min_valid`), `no_place` (lon, lat
        unknown) and `split_border`.
        Computing DN beyond int16 raises SceneError.

    Raises:
        SchemaError: The scene has no `valid`: the step mask is missing.
        ValueError: `stride` or `min_valid` is out of range.
    """
    if "valid" not in scene:
        raise SchemaError("tile needs the step mask before it, got a scene without `valid`")
    if stride < 1 or not 0 < min_valid <= 1:
        raise ValueError(f"stride must be >= 1, min_valid in (0, 1], got {stride}, {min_valid}")
    name = next(name for name in _VARIABLES if name in scene)
    valid, dead = compute(scene.valid.data, scene.dead.sum("band", dtype="uint16").data)
    rows, cols = _corners(valid.shape, stride, edges=edges)
    valid_fraction = _window_mean(valid, rows, cols)
    split, place = _places(scene, assign, rows, cols)
    reason = np.select(
        [valid_fraction < min_valid, np.isnan(place[0]), split == ""],
        ["nodata", "no_place", "split_border"], default="",
    )  # fmt: skip
    kept = reason == ""
    rows, cols = rows[kept], cols[kept]
    columns: dict[str, NDArray[np.generic]] = {
        "row": rows.astype("int32"), "col": cols.astype("int32"),
        "lon": place[0][kept], "lat": place[1][kept], "split": split[kept].astype("U5"),
        "valid_fraction": valid_fraction[kept].astype("float32"),
        "dead_fraction": (_window_mean(dead, rows, cols) / scene.sizes["band"]).astype("float32"),
    }  # fmt: skip
    rejected = {str(r): int((reason == r).sum()) for r in np.unique(reason[~kept])}
    counts = {"in": int(kept.size), "kept": int(kept.sum()), "rejected": rejected}
    step = {"step": "tile", "size": TILE_SIZE, "stride": stride, "min_valid": min_valid}
    step["edges"] = edges
    tiles = _cut(scene[name], rows, cols, scene.attrs["scene_id"])
    masks = np.empty((rows.size, *_SIDE), bool)
    for i, (row, col) in enumerate(zip(rows, cols, strict=True)):
        masks[i] = valid[row : row + TILE_SIZE, col : col + TILE_SIZE]
    return xr.Dataset(
        {
            "tiles": (("tile", "band", "y", "x"), tiles),
            "valid": (("tile", "y", "x"), da.from_array(masks, (tiles.chunks[0], *_SIDE))),
        },
        {**{k: c for k, c in scene.coords.items() if c.dims == ("band",)},
         **{k: ("tile", c) for k, c in columns.items()}},
        {"scale": 1.0, **scene.attrs, "units": _VARIABLES[name], "counts": counts,
         "shape": list(valid.shape),
         "steps": [*scene.attrs["steps"], step]},
    )  # fmt: skip


def _corners(
    shape: tuple[int, int], stride: int, *, edges: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of every whole window, row by row."""
    starts = [np.arange(0, size - TILE_SIZE + 1, stride) for size in shape]
    if edges:
        starts = [
            np.union1d(start, [size - TILE_SIZE]) if size >= TILE_SIZE else start
            for start, size in zip(starts, shape, strict=True)
        ]
    rows, cols = np.meshgrid(*starts, indexing="ij")
    return rows.ravel(), cols.ravel()


def _window_mean(
    image: NDArray[np.generic], rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> Floats:
    """Return the mean of `image` (y, x) in each window, by sums over all that is above and left."""
    total = np.zeros((image.shape[0] + 1, image.shape[1] + 1), "int64")
    np.cumsum(np.cumsum(image, axis=0, dtype="int64"), axis=1, out=total[1:, 1:])
    low, right = rows + TILE_SIZE, cols + TILE_SIZE
    inside = total[low, right] - total[rows, right] - total[low, cols] + total[rows, cols]
    return inside / TILE_SIZE**2


def _places(
    scene: xr.Dataset, assign: Assign, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> tuple[NDArray[np.str_], tuple[Floats, Floats]]:
    """Return each window's split ("" if none) and its centre's lon, lat (NaN if unknown)."""
    # The four corners, and the centre last; positions count from pixel edges.
    down, across = np.array([0, 0, 1, 1, 0.5]), np.array([0, 1, 0, 1, 0.5])
    shape = scene.sizes["y"], scene.sizes["x"]
    lon, lat = lonlat(
        scene.attrs, shape,
        rows[:, None] + TILE_SIZE * down, cols[:, None] + TILE_SIZE * across,
    )  # fmt: skip
    known = np.isfinite(lon + lat).all(axis=1)
    lon, lat = (np.where(known[:, None], place, np.nan) for place in (lon, lat))
    split = np.full(rows.size, "", "U5")
    if known.any():
        split[known] = assign(lon[known, :4], lat[known, :4])
    return split, (lon[:, 4], lat[:, 4])


def _cut(
    values: xr.DataArray, rows: NDArray[np.int64], cols: NDArray[np.int64], where: str
) -> da.Array:
    """Return windows (tile, band, y, x) of `values` (band, y, x), lazily.

    The windows that begin in one chunk of rows are one chunk of tiles: to compute them reads each
    row once.
    """
    data = values.transpose("band", "y", "x").data
    dtype = np.dtype("float32" if data.dtype.kind == "f" else "int16")
    ends = np.cumsum(data.chunks[1])
    group = np.searchsorted(ends, rows, side="right")
    parts = []
    for chunk in np.unique(group):
        top, left = rows[group == chunk], cols[group == chunk]
        first, last = int(top.min()), int(top.max()) + TILE_SIZE
        strip = data[:, first:last].rechunk({1: -1, 2: -1})
        corners = list(zip((top - first).tolist(), left.tolist(), strict=True))
        parts.append(
            strip.map_blocks(
                _windows, corners, dtype, where, dtype=dtype, new_axis=0,
                chunks=((len(corners),), strip.chunks[0], *((side,) for side in _SIDE)),
                meta=np.empty((0, 0, 0, 0), dtype),
            )
        )  # fmt: skip
    if not parts:
        parts = [da.zeros((0, data.shape[0], *_SIDE), dtype=dtype)]
    tiles: da.Array = da.concatenate(parts)
    return tiles


def _windows(
    strip: NDArray[np.generic],
    corners: list[tuple[int, int]],
    dtype: np.dtype[np.generic],
    where: str,
) -> NDArray[np.generic]:
    """Return windows (tile, band, y, x) of a strip (band, y, x), as `dtype`."""
    if strip.dtype.kind in "iu" and strip.dtype != dtype and strip.size:
        low, high = int(strip.min()), int(strip.max())
        if low < -_INT16_MAX - 1 or high > _INT16_MAX:
            raise SceneError(
                where, expected=f"DN that int16 holds, up to {_INT16_MAX}", got=f"{low} to {high}",
                todo="use a recipe that stores radiance or reflectance",
            )  # fmt: skip
    out = np.empty((len(corners), strip.shape[0], *_SIDE), dtype)
    for i, (row, col) in enumerate(corners):
        out[i] = strip[:, row : row + TILE_SIZE, col : col + TILE_SIZE]
    return out
