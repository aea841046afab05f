"""Radiance to reflectance at the top of the atmosphere."""

from datetime import datetime

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from pipeline.sensors import solar_irradiance
from storage.schema import SchemaError

SOLAR = "TSIS-1 HSRS v2 (Coddington et al. 2023), Gaussian response of each band's FWHM"


def reflectance(scene: xr.Dataset) -> xr.Dataset:
    """Turn `radiance` into `reflectance` (band, y, x) [1] float32, pi L d^2 / (E sin(elevation)).

    Lazy. NaN stays NaN; values above 1 (cloud, snow, glint) and below 0 (noise) are kept. The
    Lambertian surface and the one sun angle of the whole scene are assumed.

    Args:
        scene: `radiance` (band, y, x) [W m-2 sr-1 um-1]; attrs `sun_elevation` [deg], `acquired`.

    Raises:
        SchemaError: There is no radiance, or the sun is unknown or not above the horizon.

    Source: Chander et al. 2009, doi:10.1016/j.rse.2009.01.007, eq. 2.
    """
    if "radiance" not in scene:
        raise SchemaError("reflectance needs the step radiance before it, got none")
    elevation = scene.attrs["sun_elevation"]
    if not 0 < elevation <= 90:
        raise SchemaError(
            f"{scene.attrs['scene_id']}: sun_elevation must be in (0, 90] deg, got {elevation}; "
            "a scene without it can be used in a recipe without reflectance"
        )
    distance = earth_sun_distance(scene.attrs["acquired"])
    irradiance = band_irradiance(scene.wavelength.values, scene.fwhm.values)
    factor = np.pi * distance**2 / (irradiance * np.sin(np.radians(elevation)))
    per_band = xr.DataArray(factor.astype("float32"), dims="band", coords={"band": scene.band})
    values = (scene.radiance * per_band).assign_attrs(units="1")
    step = {"step": "reflectance", "earth_sun_distance": distance, "solar": SOLAR}
    scene = scene.drop_vars("radiance").assign(reflectance=values)
    return scene.assign_attrs(steps=[*scene.attrs["steps"], step])


def earth_sun_distance(acquired: str) -> float:
    """Return the distance between Earth and Sun [au] at a time in ISO 8601.

    Source: The Astronomical Almanac's low-precision formula; within 2.3e-4 au in 2000-2026.
    """
    days = (datetime.fromisoformat(acquired) - datetime.fromisoformat("2000-01-01T12:00Z")) / (
        datetime.fromisoformat("2000-01-02T12:00Z") - datetime.fromisoformat("2000-01-01T12:00Z")
    )
    anomaly = np.radians(357.529 + 0.98560028 * days)
    return float(1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly))


def band_irradiance(wavelength: ArrayLike, fwhm: ArrayLike) -> NDArray[np.float64]:
    """Return the solar irradiance at 1 au in each band (band) [W m-2 um-1].

    Args:
        wavelength: Centres (band) [nm].
        fwhm: Full widths at half maximum of Gaussian responses (band) [nm].

    Raises:
        SchemaError: A band lies outside of the solar table.
    """
    nm, sun = solar_irradiance()
    centre, width = np.asarray(wavelength, "float64"), np.asarray(fwhm, "float64")
    if not ((centre - width > nm[0]) & (centre + width < nm[-1]) & (width > 0)).all():
        raise SchemaError(
            f"bands must lie within {nm[0]:g}..{nm[-1]:g} nm and have a width, "
            f"got {centre.min():g}..{centre.max():g} nm, widths from {width.min():g} nm"
        )
    response = np.exp(-4 * np.log(2) * ((nm - centre[:, None]) / width[:, None]) ** 2)
    mean: NDArray[np.float64] = (response * sun).sum(axis=1) / response.sum(axis=1)
    return mean
