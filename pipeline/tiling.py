"""A scene cut into tiles, with the rules which to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import optimize
from numpy.typing import NDArray

from pipeline.quality.tiles import MEASURES, Limits, Measure, broken, check_limits, window_mean
from pipeline.windows import Assign, windows
from storage.schema import TILE_SIZE, SceneError, SchemaError

_VARIABLES = {"reflectance": "1", "radiance": "W m-2 sr-1 um-1", "dn": "DN"}
"""What is cut into tiles, the first that is there, and its unit."""
_SIDE = (TILE_SIZE, TILE_SIZE)
_INT16_MAX = 32767
_REASON = "U32"


@dataclass(frozen=True)
class _Cutting:
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


def tile(
    scene: xr.Dataset,
    assign: Assign,
    *,
    stride: int = TILE_SIZE,
    min_valid: float = 0.9,
    edges: bool = False,
    measure: tuple[Measure, ...] = (),
    keep: Mapping[str, Limits] | None = None,
) -> xr.Dataset:
    """Cut a scene into 64 x 64 tiles that lie in one split, and say which of them to keep; lazy.

    Windows begin at multiples of `stride`; what is left at the right and bottom edge and does not
    fill a window is no candidate, unless `edges`. Place alone decides which windows are candidates;
    their pixels, quality and fate come out of one and the same pass over the scene's pixels.

    Args:
        scene: `reflectance`, `radiance` or else `dn` (band, y, x); `valid` (y, x), `dead`
            (band, y, x); attr `masks`, the names of further bool images (y, x).
        assign: Gives each tile its split by its corners.
        stride: Pixels from one window to the next.
        min_valid: Smallest share of valid pixels in a kept tile [1].
        edges: Add windows that end at the right and bottom edge and overlap the last ones, so
            that every pixel is in one: for maps, not for training.
        measure: Measures of the pixels that become columns: `snr` (median over the bands of signal
            over noise, `pipeline.quality.noise`) and `stripe_index` (median over the bands,
            `pipeline.quality.stripes`; NaN in map geometry, where columns are no detectors).
        keep: Limits that a kept tile's columns stay within, e.g. {"cloud_fraction": {"max": 0.3}}.
            NaN breaks a `min` and no `max`. A mask that the bands do not allow cannot be
            applied, which the step's entry in attrs `steps` says.

    Returns:
        Over candidates: `tiles` (tile, band, y, x), int16 (DN, as they are) or float32, and `valid`
        (tile, y, x), both left at 0 where not kept; `reason` (tile), "" for a kept tile, else the
        first of `nodata` (below `min_valid`) and the columns of `keep`. Coords on tile: `row`,
        `col` (its corner in the scene's grid), `lon`, `lat` [deg] (its centre), `split`; lazy
        `valid_fraction`, `dead_fraction` and `<mask>_fraction` [1]. attrs: the scene's, `units`,
        `scale` (value = stored / scale), `shape` (rows, columns of the source), `counts`: of
        windows `in`, and `rejected` by `no_place` (lon, lat unknown) and `split_border`.
        Computing DN beyond int16 raises SceneError.

    Raises:
        SchemaError: The scene has no `valid`: the step mask is missing. Or `keep` names a column
            that no tile has.
        ValueError: `stride`, `min_valid` or a limit is out of range.
    """
    if "valid" not in scene:
        raise SchemaError("tile needs the step mask before it, got a scene without `valid`")
    if stride < 1 or not 0 < min_valid <= 1:
        raise ValueError(f"stride must be >= 1, min_valid in (0, 1], got {stride}, {min_valid}")
    masks = tuple(scene.attrs.get("masks", ()))
    rules, not_applied = _rules(keep or {}, scene, measure)
    if scene.attrs.get("crs"):
        measure = tuple(name for name in measure if name != "stripe_index")
    name = next(name for name in _VARIABLES if name in scene)
    shape = scene.sizes["y"], scene.sizes["x"]
    found = windows(scene.attrs, shape, assign, stride=stride, edges=edges)
    here = found.reason == ""
    rejected = {str(r): int((found.reason == r).sum()) for r in np.unique(found.reason[~here])}
    columns = {name: getattr(found, name)[here] for name in ("row", "col", "lon", "lat", "split")}
    images = {"valid": scene.valid, "dead": scene.dead.sum("band", dtype="uint16")}
    images |= {mask: scene[mask] for mask in masks}
    dtype = np.dtype("float32" if scene[name].dtype.kind == "f" else "int16")
    cutting = _Cutting(
        tuple(images), measure, min_valid, rules, dtype, scene.sizes["band"],
        _bands_judged(scene), scene.attrs["scene_id"],
    )  # fmt: skip
    cut = _cut(scene[name], list(images.values()), (columns["row"], columns["col"]), cutting)
    step = {"step": "tile", "size": TILE_SIZE, "stride": stride, "min_valid": min_valid,
            "edges": edges, "measure": list(measure), "not_applied": not_applied,
            "keep": {column: dict(limits) for column, limits in (keep or {}).items()}}  # fmt: skip
    tiles = xr.Dataset(
        {
            "tiles": (("tile", "band", "y", "x"), cut.pop("tiles")),
            "valid": (("tile", "y", "x"), cut.pop("valid")),
            "reason": ("tile", cut.pop("reason")),
        },
        {**{k: c for k, c in scene.coords.items() if c.dims == ("band",)},
         **{k: ("tile", c) for k, c in {**columns, **cut}.items()}},
        {"scale": 1.0, **{k: v for k, v in scene.attrs.items() if k != "masks"},
         "units": _VARIABLES[name], "shape": list(shape),
         "counts": {"in": int(here.size), "rejected": rejected},
         "steps": [*scene.attrs["steps"], step]},
    )  # fmt: skip
    # Once here, and not again for every chunk that is computed.
    optimized: xr.Dataset = optimize(tiles)[0]
    return optimized


def _bands_judged(scene: xr.Dataset) -> int:
    """Return the number of bands that `mask` looked at, of which `dead_fraction` is a share."""
    found = [step["bands_judged"] for step in scene.attrs["steps"] if "bands_judged" in step]
    return int(found[-1]) if found else scene.sizes["band"]


def _rules(
    keep: Mapping[str, Limits], scene: xr.Dataset, measure: tuple[Measure, ...]
) -> tuple[dict[str, Limits], list[str]]:
    """Return the rules that can be applied to the scene, and the columns of the others."""
    for column, limits in keep.items():
        check_limits(column, limits)
    made = {f"{mask}_fraction" for mask in scene.attrs.get("masks", ())}
    made |= {"valid_fraction", "dead_fraction", *measure}
    unavailable = {
        f"{mask}_fraction" for step in scene.attrs["steps"] for mask in step.get("unavailable", ())
    }
    if unknown := sorted(set(keep) - made - unavailable):
        raise SchemaError(f"keep must name columns of {sorted(made | unavailable)}, got {unknown}")
    if scene.attrs.get("crs"):
        made -= {"stripe_index"}
    rules = {column: limits for column, limits in keep.items() if column in made}
    return rules, sorted(set(keep) - set(rules))


def _cut(
    values: xr.DataArray,
    images: Sequence[xr.DataArray],
    corners: tuple[NDArray[np.int64], NDArray[np.int64]],
    cutting: _Cutting,
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
    cut = da.map_blocks(
        _windows, *parts, places=places, cutting=cutting, dtype=object,
        chunks=((1,), (1,) * len(strips), (1,)), meta=np.empty((0, 0, 0), object),
    )[0, :, 0]  # fmt: skip
    counts = tuple(len(some) for some in places)
    shapes = {"tiles": (cutting.bands, *_SIDE), "valid": _SIDE}
    found = {}
    for name, dtype in _outputs(cutting).items():
        shape = shapes.get(name, ())
        found[name] = cut.map_blocks(
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


def _outputs(cutting: _Cutting) -> dict[str, Any]:
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
    cutting: _Cutting,
    block_id: tuple[int, ...],
) -> NDArray[np.object_]:
    """Return one object: a dict of what `_outputs` lists, each (tile, ...), of one strip."""
    return _strip(values, images, places[block_id[1]], cutting)


def _strip(
    values: NDArray[Any],
    images: Sequence[NDArray[Any]],
    places: list[tuple[int, int]],
    cutting: _Cutting,
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
    images: dict[str, NDArray[Any]], places: list[tuple[int, int]], cutting: _Cutting
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


def _as_int16(window: NDArray[Any], cutting: _Cutting) -> NDArray[Any]:
    """Return the window, after a look whether DN of another integer type fit the tiles'."""
    if window.dtype.kind in "iu" and window.dtype != cutting.dtype:
        low, high = int(window.min()), int(window.max())
        if low < -_INT16_MAX - 1 or high > _INT16_MAX:
            raise SceneError(
                cutting.where, expected=f"DN that int16 holds, up to {_INT16_MAX}",
                got=f"{low} to {high}", todo="use a recipe that stores radiance or reflectance",
            )  # fmt: skip
    return window
