"""Sun, atmosphere and what reaches the sensor.

radiance = cosine * irradiance * transmittance * reflectance + path   [W m-2 sr-1 um-1], per band,
with cosine = sin(sun elevation) / (pi d^2), d the Earth-Sun distance in au.
The atmosphere is a plain one: Rayleigh and aerosol by power laws, gas bands as Gaussians.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources

import numpy as np

from pipeline.synth.arrays import Bools, Floats, Ints
from pipeline.synth.world import ENDMEMBERS

# Centre [nm], width [nm] and vertical optical depth of the gas bands at a medium load. Round values
# that put the bands where they are; not a radiative transfer model.
WATER_BANDS = (
    (720.0, 8.0, 0.05), (820.0, 10.0, 0.05), (940.0, 18.0, 0.40), (1136.0, 22.0, 0.50),
    (1380.0, 32.0, 4.0), (1880.0, 42.0, 4.5), (2650.0, 110.0, 3.0),
)  # fmt: skip
OTHER_BANDS = (
    (761.0, 3.5, 0.35), (688.0, 2.5, 0.10), (1268.0, 6.0, 0.06), (1575.0, 8.0, 0.03),
    (1607.0, 8.0, 0.03), (2006.0, 9.0, 0.30), (2060.0, 8.0, 0.18), (2330.0, 40.0, 0.05),
)  # fmt: skip
J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Bands:
    """The bands of one synthetic sensor, all arrays (band)."""

    number: Ints
    """Number in the product, from 1; AHSI SWIR from 151."""
    swir: Bools
    """Whether the band belongs to the SWIR detector."""
    wavelength: Floats
    """Centre [nm]."""
    fwhm: Floats
    """Width [nm]."""
    gain: Floats
    """Radiance per DN [W m-2 sr-1 um-1]."""
    offset: Floats
    """Radiance at DN 0 [W m-2 sr-1 um-1]."""
    live: Bools
    """Whether DN follow gain and offset; other bands are empty (Hyperion) or arbitrary (AHSI)."""


@dataclass(frozen=True)
class Air:
    """Sun and atmosphere over one scene."""

    cosine: float
    """sin(sun elevation) / (pi d^2) [sr-1 au-2]."""
    airmass: float
    """Length of the way down and up, in vertical ways."""
    water: float
    """Water vapour against the medium load [1]."""
    haze: float
    """Aerosol against the medium load [1]."""


@dataclass(frozen=True)
class Signal:
    """What each band sees, arrays over (band) unless said otherwise."""

    reflectance: Floats
    """(endmember, band) [1]."""
    irradiance: Floats
    """Of the sun at 1 au [W m-2 um-1]."""
    transmittance: Floats
    """Down and up [1]."""
    path: Floats
    """Radiance of the air alone [W m-2 sr-1 um-1]."""
    radiance: Floats
    """(endmember + 1, band): of a pixel full of one endmember, without path; last row: path."""


def sun_position(when: datetime, lon: float, lat: float) -> tuple[float, float]:
    """Return elevation and azimuth (clockwise from north, 0..360) of the sun [deg].

    Source: low-precision solar coordinates of the Astronomical Almanac, 0.01 deg; no refraction.
    """
    days = _days(when)
    anomaly = np.deg2rad(357.528 + 0.9856003 * days)
    longitude = np.deg2rad(
        280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly)
    )
    tilt = np.deg2rad(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(tilt) * np.sin(longitude), np.cos(longitude))
    declination = np.arcsin(np.sin(tilt) * np.sin(longitude))
    hour = np.deg2rad(280.46062 + 360.98564737 * days + lon) - ascension
    phi = np.deg2rad(lat)
    up = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour)
    east = -np.cos(declination) * np.sin(hour)
    north = np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(hour)
    return float(np.rad2deg(np.arcsin(up))), float(np.rad2deg(np.arctan2(east, north)) % 360)


def sun_distance(when: datetime) -> float:
    """Return the Earth-Sun distance [au]; Source: Astronomical Almanac, 2e-4 au."""
    anomaly = np.deg2rad(357.529 + 0.98560028 * _days(when))
    return float(1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly))


def make_air(when: datetime, sun_elevation: float, *, water: float, haze: float) -> Air:
    """Return sun and atmosphere for one date and sun elevation [deg]."""
    sine = float(np.sin(np.deg2rad(sun_elevation)))
    return Air(sine / (np.pi * sun_distance(when) ** 2), 1 / sine + 1, water, haze)


def signal(air: Air, wavelength: Floats, fwhm: Floats) -> Signal:
    """Return what bands at `wavelength` with `fwhm` (band) [nm] see: Gaussian responses."""
    grid, solar, spectra = _fine_tables()
    response = np.exp(-4 * np.log(2) * ((grid - wavelength[:, None]) / fwhm[:, None]) ** 2)
    response /= response.sum(axis=1, keepdims=True)
    reflectance = (response @ spectra.T).T
    irradiance = response @ solar
    transmittance = response @ _transmittance(air, grid)
    # What the air alone sends up, as reflectance: Rayleigh and a little aerosol.
    milky = 0.09 * (grid / 450) ** -4.08 + 0.012 * air.haze * (grid / 550) ** -1.3
    path = air.cosine * (response @ (solar * milky * _gases(air, grid) ** 0.5))
    full = air.cosine * irradiance * transmittance * reflectance
    return Signal(reflectance, irradiance, transmittance, path, np.vstack([full, path]))


@cache
def read_bands(sensor: str) -> Bands:
    """Read the bands of `sensor` ("hyperion", "gf5b", "gf5") from `tables/synth_bands.csv`."""
    rows = [row for row in csv.DictReader(_lines("synth_bands.csv")) if row["sensor"] == sensor]

    def column(name: str) -> Floats:
        return np.array([float(row[name]) for row in rows])

    return Bands(
        number=column("band").astype(int),
        swir=np.array([row["detector"] == "SWIR" for row in rows]),
        wavelength=column("wavelength_nm"),
        fwhm=column("fwhm_nm"),
        gain=column("gain"),
        offset=column("offset"),
        live=column("live") == 1,
    )


def _transmittance(air: Air, grid: Floats) -> Floats:
    scatter = 0.5 * 0.21 * (grid / 450) ** -4.08 + 0.05 * air.haze * (grid / 550) ** -1.3
    return np.asarray(np.exp(-0.5 * air.airmass * scatter) * _gases(air, grid))


def _gases(air: Air, grid: Floats) -> Floats:
    depth = np.zeros_like(grid)
    for bands, load in ((WATER_BANDS, air.water), (OTHER_BANDS, 1.0)):
        for centre, width, strength in bands:
            depth += load * strength * np.exp(-(((grid - centre) / width) ** 2))
    return np.asarray(np.exp(-air.airmass * depth))


@cache
def _fine_tables() -> tuple[Floats, Floats, Floats]:
    """Return a 1 nm grid (nm), solar irradiance (nm) and endmember reflectance (endmember, nm)."""
    grid = np.arange(340.0, 2611.0)
    solar = np.loadtxt(_lines("solar_tsis1_hsrs_v2_1nm_air.csv")[1:], delimiter=",")
    rows = list(csv.DictReader(_lines("usgs_splib07_subset.csv")))
    nodes = [float(row["wavelength_nm"]) for row in rows]
    names = [name for pair in ENDMEMBERS for name in pair]
    spectra = [np.interp(grid, nodes, [float(row[name]) for row in rows]) for name in names]
    return grid, np.interp(grid, solar[:, 0], solar[:, 1]), np.stack(spectra)


def _lines(table: str) -> list[str]:
    text = resources.files("pipeline").joinpath("tables", table).read_text()
    return [line for line in text.splitlines() if not line.startswith("#")]


def _days(when: datetime) -> float:
    return (when - J2000).total_seconds() / 86400
