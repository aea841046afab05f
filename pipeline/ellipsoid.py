"""Places on the WGS84 ellipsoid in metres: where two of them are near, straight lines will do."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Source: WGS84, NGA.STND.0036_1.0.0 (2014), table 3.1.
SEMI_MAJOR_M = 6378137.0
_FLATTENING = 1 / 298.257223563
_E2 = _FLATTENING * (2 - _FLATTENING)
MERIDIAN_M_PER_DEGREE = float(np.radians(SEMI_MAJOR_M * (1 - _E2)))
"""Least metres in a degree, of latitude at the equator: 110574."""


def cartesian(lon: ArrayLike, lat: ArrayLike) -> Floats:
    """Return x, y, z [m] (..., 3) of places at height 0, by `lon`, `lat` [deg].

    Source: NGA.STND.0036_1.0.0, equations 4-14 to 4-16.
    """
    east, north = np.radians(lon), np.radians(lat)
    normal = SEMI_MAJOR_M / np.sqrt(1 - _E2 * np.sin(north) ** 2)
    x, y = (normal * np.cos(north) * turn for turn in (np.cos(east), np.sin(east)))
    return np.stack([x, y, normal * (1 - _E2) * np.sin(north)], axis=-1)


def plane(lon: ArrayLike, lat: ArrayLike) -> tuple[Floats, Floats]:
    """Return unit vectors (..., 3) to east and north of the plane that touches at a place [deg]."""
    lam, phi = np.radians(lon), np.radians(lat)
    east = np.stack([-np.sin(lam), np.cos(lam), np.zeros_like(lam)], axis=-1)
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)], axis=-1)
    return east, north
