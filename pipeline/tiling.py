"""A scene cut into tiles, with the rules which to keep."""

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import optimize
from numpy.typing import NDArray

from pipeline.cutting import Cutting, cut
from pipeline.quality.tiles import Limits, Measure, check_limits
from pipeline.windows import Assign, windows
from storage.schema import TILE_SIZE, SchemaError

_VARIABLES = {"reflectance": "1", "radiance": "W m-2 sr-1 um-1", "dn": "DN"}
"""What is cut into tiles, the first that is there, and its unit."""


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
        `col` (its corner in the scene's grid), `lon`, `lat` [deg] (its centre), `split` and
        `FOOTPRINT_COORDS` [m]; lazy
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
    rules, not_applied = _rules(keep or {}, scene, measure)
    if scene.attrs.get("crs"):
        measure = tuple(name for name in measure if name != "stripe_index")
    shape = scene.sizes["y"], scene.sizes["x"]
    found = windows(scene.attrs, shape, assign, stride=stride, edges=edges)
    here = found.reason == ""
    columns = {name: getattr(found, name)[here] for name in ("row", "col", "lon", "lat", "split")}
    columns |= {name: column[here] for name, column in found.footprint.items()}
    pixels = scene[next(name for name in _VARIABLES if name in scene)]
    made = _cut(scene, pixels, columns, min_valid=min_valid, measure=measure, keep=rules)
    step = {"step": "tile", "size": TILE_SIZE, "stride": stride, "min_valid": min_valid,
            "edges": edges, "measure": list(measure), "not_applied": not_applied,
            "keep": {column: dict(limits) for column, limits in (keep or {}).items()}}  # fmt: skip
    tiles = xr.Dataset(
        {
            "tiles": (("tile", "band", "y", "x"), made.pop("tiles")),
            "valid": (("tile", "y", "x"), made.pop("valid")),
            "reason": ("tile", made.pop("reason")),
        },
        {**{k: c for k, c in scene.coords.items() if c.dims == ("band",)},
         **{k: ("tile", c) for k, c in {**columns, **made}.items()}},
        _attrs(scene, pixels, found.reason, step),
    )  # fmt: skip
    # Once here, and not again for every chunk that is computed.
    optimized: xr.Dataset = optimize(tiles)[0]
    return optimized


def _cut(
    scene: xr.Dataset,
    pixels: xr.DataArray,
    columns: Mapping[str, NDArray[Any]],
    *,
    min_valid: float,
    measure: tuple[Measure, ...],
    keep: Mapping[str, Limits],
) -> dict[str, da.Array]:
    """Return what is cut out of `pixels` at `row`, `col` of `columns`, and its quality, lazily."""
    images = {"valid": scene.valid, "dead": scene.dead.sum("band", dtype="uint16")}
    images |= {mask: scene[mask] for mask in scene.attrs.get("masks", ())}
    dtype = np.dtype("float32" if pixels.dtype.kind == "f" else "int16")
    cutting = Cutting(
        tuple(images), measure, min_valid, keep, dtype, scene.sizes["band"],
        _bands_judged(scene), scene.attrs["scene_id"],
    )  # fmt: skip
    return cut(pixels, list(images.values()), (columns["row"], columns["col"]), cutting)


def _attrs(
    scene: xr.Dataset, pixels: xr.DataArray, reason: NDArray[np.str_], step: dict[str, Any]
) -> dict[Any, Any]:
    """Return the tiles' attrs, with the windows counted that have a `reason` by their place."""
    names, counts = np.unique(reason[reason != ""], return_counts=True)
    rejected = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return {
        "scale": 1.0, **{k: v for k, v in scene.attrs.items() if k != "masks"},
        "units": _VARIABLES[str(pixels.name)], "shape": [scene.sizes["y"], scene.sizes["x"]],
        "counts": {"in": reason.size, "rejected": rejected},
        "steps": [*scene.attrs["steps"], step],
    }  # fmt: skip


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
