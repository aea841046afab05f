"""Rational polynomial coefficients: where an image in sensor geometry has places, and back.

Source: RPC00B, NGA STDI-0002 appendix E, section E.2.4: order of the terms, and line and sample
that count from 0 at the centre of the first pixel. Rows and columns here count from its outer
corner, so that they are 0.5 more.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float64]

_STEPS = 20
_NUDGE = 1e-6
"""Step of the numerical derivatives, in the normalised coordinates, which are -1..1."""
_CLOSE = 1e-3
"""Pixels; a place that is not found so nearly is NaN."""


def rowcol(
    rpc: Mapping[str, Any], lon: Floats, lat: Floats, height: float
) -> tuple[Floats, Floats]:
    """Return rows and columns of places; not finite where the RPC gives none.

    Args:
        rpc: Offsets, scales and coefficients by rasterio's names.
        lon: Longitudes [deg, WGS84].
        lat: Latitudes [deg, WGS84]; of the same shape.
        height: Above the ellipsoid [m].
    """
    with np.errstate(all="ignore"):
        east = (lon - rpc["long_off"] + 180) % 360 - 180
        v, p = east / np.float64(rpc["long_scale"]), (lat - rpc["lat_off"]) / rpc["lat_scale"]
        return _image(rpc, v, p, (height - rpc["height_off"]) / np.float64(rpc["height_scale"]))


def lonlat(rpc: Mapping[str, Any], row: Floats, col: Floats) -> tuple[Floats, Floats]:
    """Return longitude and latitude [deg, WGS84] at the RPC's height offset, by Newton's method.

    NaN where there is none that comes back to the position.

    Args:
        rpc: Offsets, scales and coefficients by rasterio's names.
        row: Positions along y.
        col: Positions along x; of the same shape.
    """
    v, p = np.zeros_like(row), np.zeros_like(row)
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            y, x = _image(rpc, v, p, 0.0)
            y_v, x_v = ((_image(rpc, v + _NUDGE, p, 0.0)[i] - (y, x)[i]) / _NUDGE for i in (0, 1))
            y_p, x_p = ((_image(rpc, v, p + _NUDGE, 0.0)[i] - (y, x)[i]) / _NUDGE for i in (0, 1))
            size = y_v * x_p - y_p * x_v
            dy, dx = row - y, col - x
            v, p = v + (dy * x_p - y_p * dx) / size, p + (y_v * dx - dy * x_v) / size
        y, x = _image(rpc, v, p, 0.0)
        found = np.hypot(row - y, col - x) < _CLOSE
        lon = (v * rpc["long_scale"] + rpc["long_off"] + 180) % 360 - 180
        lat = p * rpc["lat_scale"] + rpc["lat_off"]
    found &= (np.abs(lat) <= 90) & bool(rpc["lat_scale"] and rpc["long_scale"])
    return np.where(found, lon, np.nan), np.where(found, lat, np.nan)


def _image(rpc: Mapping[str, Any], v: Floats, p: Floats, h: float) -> tuple[Floats, Floats]:
    """Return rows and columns of normalised longitude `v`, latitude `p` and height `h`."""
    terms = np.stack(
        [np.ones_like(v), v, p, np.full_like(v, h), v * p, v * h, p * h, v**2, p**2,
         np.full_like(v, h**2), p * v * h, v**3, v * p**2, v * h**2, v**2 * p, p**3, p * h**2,
         v**2 * h, p**2 * h, np.full_like(v, h**3)]
    )  # fmt: skip
    value = {
        name: np.tensordot(np.asarray(rpc[f"{name}_coeff"], "float64"), terms, axes=1)
        for name in ("line_num", "line_den", "samp_num", "samp_den")
    }
    line = value["line_num"] / value["line_den"] * rpc["line_scale"] + rpc["line_off"]
    sample = value["samp_num"] / value["samp_den"] * rpc["samp_scale"] + rpc["samp_off"]
    return line + 0.5, sample + 0.5
