"""What the steps that work on detectors share: sensor geometry, and rows in bounded memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.sensors import SENSORS
from storage.schema import SchemaError

MAP_GEOMETRY = "map geometry: columns are no detectors"


def recorded(scene: xr.Dataset, step: dict[str, Any]) -> xr.Dataset:
    """Return the scene with `step` at the end of attrs `steps`."""
    return scene.assign_attrs(steps=[*scene.attrs["steps"], step])


def is_map(scene: xr.Dataset) -> bool:
    """Say whether the scene is resampled to a map, so that a column is no detector."""
    return bool(scene.attrs.get("crs"))


def check_first(scene: xr.Dataset, name: str) -> None:
    """Refuse a step on `dn` after those that have used `dn` already.

    Raises:
        SchemaError: The scene has `radiance`, `reflectance` or `valid`.
    """
    if late := [done for done in ("radiance", "reflectance", "valid") if done in scene]:
        raise SchemaError(f"{name} must come before radiance and mask, got a scene with {late}")


def row_spans(scene: xr.Dataset) -> Iterator[tuple[slice, xr.Dataset]]:
    """Yield the rows of each chunk of `dn` and the scene's part there, read into memory."""
    rows = scene.sizes["y"]
    chunks = dict(zip(scene.dn.dims, scene.dn.chunks or ((), (rows,), ()), strict=True))["y"]
    stop = 0
    names = [name for name in ("dn", "dn_delivered", "flags") if name in scene]
    for size in chunks:
        span = slice(stop, stop + size)
        stop += size
        yield span, scene[names].isel(y=span).compute()


def detectors_of(scene: xr.Dataset) -> dict[str, NDArray[np.intp]]:
    """Return the places on `band` of each detector's bands, by the detector's name."""
    names = (
        scene.detector.values if "detector" in scene.coords else np.array(["all"] * len(scene.band))
    )
    return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}


def delivered(scene: xr.Dataset) -> xr.DataArray:
    """Return the integers (band, y, x) as the product has them, which tell what is saturated."""
    return scene["dn_delivered" if "dn_delivered" in scene else "dn"]


def broken(part: xr.Dataset, attrs: dict[str, Any]) -> NDArray[np.bool_]:
    """Return the samples (band, y, x) that are flagged, or saturated without flags, or filled."""
    found: NDArray[np.bool_]
    if "flags" in part:
        found = part.flags.values != 0
    elif (ceiling := SENSORS[attrs["sensor"]].ceiling) is not None:
        found = delivered(part).values >= ceiling
    else:
        found = np.zeros(part.dn.shape, bool)
    if "fill" in attrs:
        found |= part.dn.values == attrs["fill"]
    return found
