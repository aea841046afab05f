"""Which pixels and samples hold a measurement."""

from functools import reduce
from operator import or_

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.sensors import band_list
from storage.schema import TILE_SIZE, SchemaError

_BAD_FLAGS = (1, 2, 3, 4)
"""Saturated, dead, flat and fill of the Hyperion flag mask (USGS EO-1 FAQ 22)."""


def mask(scene: xr.Dataset, *, max_dead: float = 0.1) -> xr.Dataset:
    """Add `valid` (y, x) and `dead` (band, y, x), both bool; lazy.

    Only bands that count are judged: calibrated ones (the sensor's list) with a positive gain.
    - border: a pixel without data (`nodata` or `fill`) in all of them. A single zero is none, as
      dark water has zeros in the SWIR.
    - dead: a sample that the product flags as saturated, dead, flat or overflown, or that is
      `fill`. Without flags, in sensor geometry (no `crs`): a column of a band that is `nodata`
      throughout 64 rows, while its neighbours on both sides are not, in at least half of them.
      In map geometry columns are no detectors, and nothing is looked for. Besides, those of
      `bad_detector` (see `detectors`) and what `coregister` has vacated, if they are there.
    - `valid`: no border, and at most `max_dead` of the bands that count are dead.

    `radiance`, if it is there, becomes NaN where the pixel is not valid or the sample is dead.

    Args:
        scene: `dn` (band, y, x), in chunks that start at multiples of 64 rows.
        max_dead: Largest share of dead bands in a valid pixel [1].

    Raises:
        SchemaError: No band of the scene counts, or the step reflectance came first.
        ValueError: `max_dead` is out of range.
    """
    if not 0 <= max_dead <= 1:
        raise ValueError(f"max_dead must be in [0, 1], got {max_dead}")
    if "reflectance" in scene and "dn" in scene and "radiance" not in scene:
        raise SchemaError("mask must come before reflectance, into which it would put no NaN")
    calibrated = band_list(scene.attrs["sensor"], "calibrated").bands
    counts = scene.band.isin(calibrated) & (scene.gain > 0)
    number = int(counts.sum())
    if number == 0:
        raise SchemaError(f"{scene.attrs['scene_id']}: no calibrated band among those kept")
    empty = scene.dn == scene.attrs["nodata"]
    if "fill" in scene.attrs:
        empty |= scene.dn == scene.attrs["fill"]
    # The bands that count are few numbers in memory; indexing with them stays lazy.
    judged = empty if counts.all() else empty.isel(band=np.flatnonzero(counts.values))
    valid = some_data = ~judged.all("band")
    dead = xr.zeros_like(empty)
    if found := _dead(scene, empty):
        dead = reduce(or_, found) & counts & some_data
        valid = some_data & (dead.sum("band") <= max_dead * number)
    scene = scene.assign(valid=valid, dead=dead.transpose("band", "y", "x"))
    if "radiance" in scene:
        kept = scene.radiance.where(valid & ~dead).transpose("band", "y", "x")
        scene = scene.assign(radiance=kept.assign_attrs(scene.radiance.attrs))
    step = {"step": "mask", "max_dead": max_dead, "bands_judged": number,
            "dead_from": " and ".join([_dead_source(scene), *_step_findings(scene)])}  # fmt: skip
    return scene.assign_attrs(steps=[*scene.attrs["steps"], step])


def _dead_source(scene: xr.Dataset) -> str:
    if "flags" in scene:
        return "flags"
    return "none: map geometry" if scene.attrs.get("crs") else "empty columns"


def _step_findings(scene: xr.Dataset) -> list[str]:
    return [name for name in ("bad_detector", "vacated") if name in scene]


def _dead(scene: xr.Dataset, empty: xr.DataArray) -> list[xr.DataArray]:
    """Return what says which samples come from dead detectors, each (band, y, x) or (band, x)."""
    found: list[xr.DataArray] = [scene[name] for name in _step_findings(scene)]
    source = _dead_source(scene)
    if source == "flags":
        return [scene.flags.isin(_BAD_FLAGS), scene.dn == scene.attrs["fill"], *found]
    if source == "empty columns":
        columns = empty.data.map_blocks(empty_columns, dtype=bool)
        return [empty.copy(data=columns), *found]
    return found


def empty_columns(empty: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `empty` (band, y, x) where a column is so throughout 64 rows and its neighbours not.

    A run of two or more empty columns is taken for dark ground: it is not found. Fewer than 32
    rows at the end are not judged.
    """
    starts = np.arange(0, empty.shape[1], TILE_SIZE)
    rows = np.diff([*starts, empty.shape[1]])
    if empty.size == 0:
        return empty
    count = np.add.reduceat(empty, starts, axis=1, dtype=np.int32)
    lively = count <= rows[:, None] / 2
    beside = np.pad(lively, ((0, 0), (0, 0), (1, 1)), constant_values=True)
    judged = (count == rows[:, None]) & (rows[:, None] >= TILE_SIZE / 2)
    dead = judged & beside[..., :-2] & beside[..., 2:]
    return np.repeat(dead, rows, axis=1)
