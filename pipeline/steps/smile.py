"""The smile: the wavelength of a band changes across track."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.steps.geometry import MAP_GEOMETRY, detectors_of, is_map, recorded
from storage.schema import SchemaError

_RESAMPLED = ("radiance", "reflectance")


def smile(scene: xr.Dataset, *, resample: bool = False) -> xr.Dataset:
    """Report how far the columns' wavelengths are from the band's; bring them there if asked to.

    With `resample`, each column's spectrum in `radiance` or `reflectance` is interpolated linearly
    between the two bands of its detector beside the band's wavelength; lazy, float32. At a
    detector's ends, where only one side is there, the line through the two nearest is continued,
    by as much as the smile. NaN in either band gives NaN, unless it has no weight. `dn` stays as
    it is and so do FWHM and the masks. `wavelength_column` becomes the band's own wavelength.

    The step's record has per detector the largest deviation over its columns, `max_nm`
    [before, after]. Map products, and those without per-column wavelengths, pass unchanged.

    Args:
        scene: `wavelength_column` (band, x) [nm], the wavelength of each detector.
        resample: Whether to interpolate.

    Raises:
        SchemaError: There are integers alone to resample, or only one band of a detector.
    """
    step: dict[str, Any] = {"step": "smile", "resample": resample}
    if is_map(scene) or "wavelength_column" not in scene:
        why = MAP_GEOMETRY if is_map(scene) else "the product has no wavelengths per column"
        return recorded(scene, {**step, "applied": False, "why": why})
    names = [name for name in _RESAMPLED if name in scene]
    if resample and not names:
        raise SchemaError(
            f"{scene.attrs['scene_id']}: smile can resample radiance or reflectance, got dn alone: "
            "interpolated integers would be no measurements; put the step radiance before it, "
            "or say resample: false"
        )
    before = _deviation(scene)
    if resample:
        scene = _resampled(scene, names)
    after = _deviation(scene)
    effect = {name: {"max_nm": [before[name], after[name]]} for name in before}
    return recorded(scene, {**step, "applied": resample, "effect": effect})


def interpolate(values: NDArray[Any], columns: NDArray[Any], nominal: NDArray[Any]) -> NDArray[Any]:
    """Return `values` (band, y, x) at `nominal` (band) [nm], measured at `columns` (band, x) [nm].

    Along `nominal`, wavelengths ascend in each column. Bit for bit the same where they agree.
    """
    bands = len(nominal)
    here = np.arange(bands)[:, None]
    # The other end of the line is the band on the side that the wanted wavelength lies on.
    other = np.where(columns > nominal[:, None], here - 1, here + 1)
    other = np.where(other < 0, 1, np.where(other >= bands, bands - 2, other))
    span = np.take_along_axis(columns, other, axis=0) - columns
    weight = ((nominal[:, None] - columns) / span).astype(np.float32)[:, None, :]
    out = np.empty(values.shape, np.float32)
    for band in range(bands):
        far = values[other[band], :, np.arange(values.shape[2])].T
        line = values[band] + weight[band] * (far - values[band])
        out[band] = np.where(weight[band] == 0, values[band], line)
    return out


def _deviation(scene: xr.Dataset) -> dict[str, float]:
    away = np.abs(scene.wavelength_column.values - scene.wavelength.values[:, None])
    return {name: float(away[place].max()) for name, place in detectors_of(scene).items()}


def _resampled(scene: xr.Dataset, names: list[str]) -> xr.Dataset:
    columns = scene.wavelength_column.values.astype("float64")
    nominal = scene.wavelength.values
    groups = []
    for detector, place in detectors_of(scene).items():
        if len(place) < 2 or not (np.diff(nominal[place]) > 0).all() or not (
            np.diff(columns[place], axis=0) > 0).all():  # fmt: skip
            raise SchemaError(
                f"{scene.attrs['scene_id']}: smile needs two or more bands of {detector} with "
                f"ascending wavelengths in each column, got {len(place)} bands"
            )
        groups.append(place)
    order = np.argsort(np.concatenate(groups), kind="stable")
    new = {}
    for name in names:
        parts = [_one_detector(scene[name].isel(band=place), columns[place], nominal[place])
                 for place in groups]  # fmt: skip
        new[name] = xr.concat(parts, "band").isel(band=order).assign_attrs(scene[name].attrs)
    same = np.broadcast_to(nominal[:, None], columns.shape).astype("float32")
    return scene.assign({**new, "wavelength_column": scene.wavelength_column.copy(data=same)})


def _one_detector(
    values: xr.DataArray, columns: NDArray[Any], nominal: NDArray[Any]
) -> xr.DataArray:
    # A pixel's whole spectrum is needed at a time.
    data = values.data.rechunk({0: -1, 2: -1})
    return values.copy(data=data.map_blocks(interpolate, columns, nominal, dtype=np.float32))
