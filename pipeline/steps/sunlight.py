"""Sunlight at the top of the atmosphere: how far the sun is, and what it sends into each band."""

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from pipeline.sensors import SENSORS, TABLES, solar_irradiance
from storage.schema import SchemaError

type Floats = NDArray[np.float64]
Solar = Literal["tsis1", "usgs", "e490"]

SOLAR: dict[Solar, str] = {
    "tsis1": "TSIS-1 HSRS v2 (Coddington et al. 2023), Gaussian response of each band's FWHM",
    "usgs": "USGS Hyperion spectral irradiance table (hyp_irradiance.txt, 2017-02-01)",
    "e490": "ASTM E-490-00a, Gaussian response of each band's FWHM",
}
"""The solar spectra by the name that a recipe gives them, and their sources."""


def reflectance_factor(scene: xr.Dataset, solar: Solar) -> xr.DataArray:
    """Return reflectance over radiance, pi d^2 / (E sin(elevation)) (band) [m2 sr um W-1] float32.

    NaN in bands for which the solar table has no value.

    Args:
        scene: Coords `wavelength`, `fwhm` [nm]; attrs `sun_elevation` [deg], `acquired`.
        solar: Whose irradiance E.

    Raises:
        SchemaError: The sun is unknown or not above the horizon, or the table is not for this
            sensor or these wavelengths.

    Source: Chander et al. 2009, doi:10.1016/j.rse.2009.01.007, eq. 2.
    """
    elevation = scene.attrs["sun_elevation"]
    if not 0 < elevation <= 90:
        raise SchemaError(
            f"{scene.attrs['scene_id']}: sun_elevation must be in (0, 90] deg, got {elevation}; "
            "a scene without it can be used in a recipe without reflectance"
        )
    distance = earth_sun_distance(scene.attrs["acquired"])
    factor = np.pi * distance**2 / (irradiance(scene, solar) * np.sin(np.radians(elevation)))
    return xr.DataArray(factor.astype("float32"), dims="band", coords={"band": scene.band})


def record(scene: xr.Dataset, solar: Solar) -> dict[str, object]:
    """Return what a step says about the sunlight that it used."""
    lacking = scene.band.values[np.isnan(irradiance(scene, solar))].tolist()
    return {"solar": solar, "solar_source": SOLAR[solar], "bands_without_irradiance": lacking,
            "earth_sun_distance": earth_sun_distance(scene.attrs["acquired"])}  # fmt: skip


def earth_sun_distance(acquired: str) -> float:
    """Return the distance between Earth and Sun [au] at a time in ISO 8601.

    Source: The Astronomical Almanac's low-precision formula; within 2.3e-4 au in 2000-2026.
    """
    days = (datetime.fromisoformat(acquired) - datetime.fromisoformat("2000-01-01T12:00Z")) / (
        datetime.fromisoformat("2000-01-02T12:00Z") - datetime.fromisoformat("2000-01-01T12:00Z")
    )
    anomaly = np.radians(357.529 + 0.98560028 * days)
    return float(1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly))


def irradiance(scene: xr.Dataset, solar: Solar) -> Floats:
    """Return the solar irradiance at 1 au in each band (band) [W m-2 um-1], NaN where unknown.

    Raises:
        SchemaError: `usgs` for another sensor than Hyperion, or a band beyond the spectrum.
    """
    if solar == "usgs":
        return _usgs(scene)
    spectrum = {"tsis1": solar_irradiance, "e490": solar_e490}[solar]
    return band_irradiance(scene.wavelength.values, scene.fwhm.values, spectrum)


def band_irradiance(
    wavelength: ArrayLike,
    fwhm: ArrayLike,
    spectrum: Callable[[], tuple[Floats, Floats]] = solar_irradiance,
) -> Floats:
    """Return the solar irradiance at 1 au in each band (band) [W m-2 um-1].

    Args:
        wavelength: Centres (band) [nm].
        fwhm: Full widths at half maximum of Gaussian responses (band) [nm].
        spectrum: Returns wavelengths in equal steps [nm] and irradiance at 1 au [W m-2 um-1].

    Raises:
        SchemaError: A band lies outside of the solar table.
    """
    nm, sun = spectrum()
    centre, width = np.asarray(wavelength, "float64"), np.asarray(fwhm, "float64")
    if not ((centre - width > nm[0]) & (centre + width < nm[-1]) & (width > 0)).all():
        raise SchemaError(
            f"bands must lie within {nm[0]:g}..{nm[-1]:g} nm and have a width, "
            f"got {centre.min():g}..{centre.max():g} nm, widths from {width.min():g} nm"
        )
    response = np.exp(-4 * np.log(2) * ((nm - centre[:, None]) / width[:, None]) ** 2)
    mean: Floats = (response @ sun) / response.sum(axis=1)
    return mean


@cache
def solar_e490() -> tuple[Floats, Floats]:
    """Return wavelength [nm] and irradiance at 1 au [W m-2 um-1] of ASTM E-490-00a, every 1/4 nm.

    The table's samples, 1 or 2 nm apart, are joined by straight lines: a sum over them alone is up
    to 1 % off in bands 4 nm wide.
    """
    samples = np.loadtxt(TABLES / "solar_astm_e490.csv", delimiter=",", skiprows=3)
    nm = np.arange(samples[0, 0], samples[-1, 0], 0.25)
    return nm, np.interp(nm, samples[:, 0], samples[:, 1])


def _usgs(scene: xr.Dataset) -> Floats:
    """Return the published irradiance of the scene's bands; NaN for Hyperion's bands 235-242."""
    sensor = SENSORS[scene.attrs["sensor"]]
    if "usgs" not in sensor.irradiance:
        raise SchemaError(
            f"{scene.attrs['scene_id']}: solar usgs is a table of Hyperion's bands, got sensor "
            f"{sensor.name}; choose tsis1 or e490"
        )
    found: Floats = sensor.irradiance["usgs"][np.searchsorted(sensor.band, scene.band.values)]
    return found
