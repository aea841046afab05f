"""Windows cut out of a scene strip by strip, judged and copied in one pass over its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.quality.tiles import MEASURES, Limits, Measure, broken, window_mean
from storage.schema import TILE_SIZE, SceneError

type Corners = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Row and column of each window (tile)."""

_SIDE = (TILE_SIZE, TILE_SIZE)
_INT16_MAX = 32767
_REASON = "U32"


@dataclass(frozen=True)
class Cutting:
    """What one strip's worth of tiles is cut and judged by; travels to where that is done."""

    names: tuple[str, ...]
    """Of the (y, x) images that come with the pixels: `valid`, `dead`, then the masks."""
    measure: tuple[Measure, ...]
    min_valid: float
    keep: Mapping[str, Limits]
    dtype: np.dtype[Any]
    bands: int
    judged: int
    """Bands that `mask` looks for dead samples in."""
    where: str


def cut(
    values: xr.DataArray, images: Sequence[xr.DataArray], corners: Corners, cutting: Cutting
) -> dict[str, da.Array]:
    """Return `tiles`, `valid`, `reason` and the quality columns of all windows, lazily.

    The windows that begin in one chunk of rows are one chunk of tiles, made by one task: to
    compute all that it says of them reads each row once.
    """
    rows, cols = corners
    data = values.transpose("band", "y", "x").data
    strips = row_strips(data.chunks[1])
    ends = np.cumsum(strips)
    group = np.searchsorted(ends, rows, side="right")
    first = ends - strips
    places = [
        list(zip((rows[group == i] - first[i]).tolist(), cols[group == i].tolist(), strict=True))
        for i in range(len(strips))
    ]
    beyond = int((rows + TILE_SIZE - ends[group]).max(initial=0))
    parts = [data, *(image.transpose("y", "x").data for image in images)]
    parts = [_with_rows_after(part, strips, beyond) for part in parts]
    # As many dimensions as the pixels, or Dask would copy these.
    made = da.map_blocks(
        _windows, *parts, places=places, cutting=cutting, dtype=object,
        chunks=((1,), (1,) * len(strips), (1,)), meta=np.empty((0, 0, 0), object),
    )[0, :, 0]  # fmt: skip
    counts = tuple(len(some) for some in places)
    shapes = {"tiles": (cutting.bands, *_SIDE), "valid": _SIDE}
    found = {}
    for name, dtype in _outputs(cutting).items():
        shape = shapes.get(name, ())
        found[name] = made.map_blocks(
            _take, name, dtype=dtype, new_axis=list(range(1, 1 + len(shape))) or None,
            chunks=(counts, *((size,) for size in shape)),
            meta=np.empty((0,) * (1 + len(shape)), dtype),
        )  # fmt: skip
    return found


def row_strips(chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Return the chunks of rows, put together until each has as many as a tile."""
    strips: list[int] = []
    for rows in chunks:
        if strips and strips[-1] < TILE_SIZE:
            strips[-1] += rows
        else:
            strips.append(rows)
    if len(strips) > 1 and strips[-1] < TILE_SIZE:
        rest = strips.pop()
        strips[-1] += rest
    return tuple(strips)


def _with_rows_after(array: da.Array, strips: tuple[int, ...], rows: int) -> da.Array:
    """Return an array (..., y, x) in `strips`, each followed by `rows` of the next."""
    y = array.ndim - 2
    array = array.rechunk({**dict.fromkeys(range(array.ndim), -1), y: strips})
    if rows:
        array = da.overlap.overlap(array, depth={y: (0, rows)}, boundary={y: "none"})
    return array


def _outputs(cutting: Cutting) -> dict[str, Any]:
    """Return what a strip's task makes for each tile: dtype by name."""
    columns = [f"{name}_fraction" for name in cutting.names]
    return {"tiles": cutting.dtype, "valid": "bool", "reason": _REASON,
            **dict.fromkeys([*columns, *cutting.measure], "float32")}  # fmt: skip


class _Own(np.ndarray[Any, Any]):
    """An array made for one computation and held by nothing else.

    Dask copies the last result of a computation, lest somebody writes into what its graph holds.
    Of tiles that would touch all the zeroed memory of those that are not kept.
    """

    def copy(self, order: Any = "C") -> Any:
        return self.view(np.ndarray)


def _take(strip: NDArray[np.object_], name: str) -> NDArray[Any]:
    found: NDArray[Any] = strip[0][name].view(_Own)
    return found


def _windows(
    values: NDArray[Any],
    *images: NDArray[Any],
    places: list[list[tuple[int, int]]],
    cutting: Cutting,
    block_id: tuple[int, ...],
) -> NDArray[np.object_]:
    """Return one object: a dict of what `_outputs` lists, each (tile, ...), of one strip."""
    return _strip(values, images, places[block_id[1]], cutting)


def _strip(
    values: NDArray[Any],
    images: Sequence[NDArray[Any]],
    places: list[tuple[int, int]],
    cutting: Cutting,
) -> NDArray[np.object_]:
    found = _judge(dict(zip(cutting.names, images, strict=True)), places, cutting)
    found |= {name: np.full(len(places), np.nan) for name in cutting.measure}
    # Zeroed memory that is never touched costs nothing: only kept tiles are copied.
    tiles = np.zeros((len(places), cutting.bands, *_SIDE), cutting.dtype)
    valid = np.zeros((len(places), *_SIDE), bool)
    for i, (row, col) in enumerate(places):
        if found["reason"][i]:
            continue
        window = (..., slice(row, row + TILE_SIZE), slice(col, col + TILE_SIZE))
        for name in cutting.measure:
            found[name][i] = MEASURES[name](values[window], images[0][window])
        found["reason"][i] = broken(found, cutting.measure, cutting.keep, i)
        if not found["reason"][i]:
            tiles[i] = _as_int16(values[window], cutting)
            valid[i] = images[0][window]
    out = np.empty((1, 1, 1), object)
    columns = {n: c if n == "reason" else c.astype("float32") for n, c in found.items()}
    out[0, 0, 0] = {**columns, "tiles": tiles, "valid": valid}
    return out


def _judge(
    images: dict[str, NDArray[Any]], places: list[tuple[int, int]], cutting: Cutting
) -> dict[str, NDArray[Any]]:
    """Return the windows' means of images, and the first reason to reject each, "" if none."""
    rows, cols = np.array(places, dtype=np.int64).reshape(-1, 2).T
    found: dict[str, NDArray[Any]] = {
        f"{name}_fraction": window_mean(image, rows, cols) for name, image in images.items()
    }
    found["dead_fraction"] = found["dead_fraction"] / cutting.judged
    reason = np.full(rows.size, "", _REASON)
    for i in range(rows.size):
        few = found["valid_fraction"][i] < cutting.min_valid
        reason[i] = "nodata" if few else broken(found, tuple(found), cutting.keep, i)
    return {**found, "reason": reason}


def _as_int16(window: NDArray[Any], cutting: Cutting) -> NDArray[Any]:
    """Return the window, after a look whether DN of another integer type fit the tiles'."""
    if window.dtype.kind in "iu" and window.dtype != cutting.dtype:
        low, high = int(window.min()), int(window.max())
        if low < -_INT16_MAX - 1 or high > _INT16_MAX:
            raise SceneError(
                cutting.where, expected=f"DN that int16 holds, up to {_INT16_MAX}",
                got=f"{low} to {high}", todo="use a recipe that stores radiance or reflectance",
            )  # fmt: skip
    return window
