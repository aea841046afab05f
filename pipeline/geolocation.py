"""Where a pixel lies: longitude and latitude from what a scene's attrs have."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from pipeline import rpc

Floats = NDArray[np.float64]


def lonlat(
    attrs: Mapping[str, Any], shape: tuple[int, int], rows: ArrayLike, cols: ArrayLike
) -> tuple[Floats, Floats]:
    """Return longitude and latitude [deg, WGS84] of positions in a scene's grid.

    From `crs` and `transform`; or `rpc` at its height offset, exact to 0.001 pixels; or,
    bilinearly, `corners`, taken as the centres of the corner pixels, as in other USGS metadata;
    else NaN.

    Args:
        attrs: The scene's.
        shape: Its (y, x) size in pixels.
        rows: Positions along y; 0 is the first row's outer edge, 0.5 its pixels' centre.
        cols: Positions along x, likewise; of the same shape as `rows`.
    """
    row, col = np.asarray(rows, "float64"), np.asarray(cols, "float64")
    if attrs.get("crs"):
        lon, lat = _from_map(attrs, row.ravel(), col.ravel())
    elif attrs.get("rpc"):
        lon, lat = rpc.lonlat(attrs["rpc"], row.ravel(), col.ravel())
    elif attrs.get("corners"):
        lon, lat = _from_corners(attrs["corners"], shape, row.ravel(), col.ravel())
    else:
        lon = lat = np.full(row.size, np.nan)
    return lon.reshape(row.shape), lat.reshape(row.shape)


def _from_map(attrs: Mapping[str, Any], row: Floats, col: Floats) -> tuple[Floats, Floats]:
    a, b, c, d, e, f = attrs["transform"]
    x, y = a * col + b * row + c, d * col + e * row + f
    lon, lat = transform(CRS.from_user_input(attrs["crs"]), CRS.from_epsg(4326), x, y)
    return np.asarray(lon), np.asarray(lat)


def _from_corners(
    corners: Mapping[str, Any], shape: tuple[int, int], row: Floats, col: Floats
) -> tuple[Floats, Floats]:
    place = {name: np.array(lonlat) for name, lonlat in corners.items()}
    # Degrees beyond 180 where the image crosses the date line, so that they can be averaged.
    for name in place:
        place[name][0] += 360 * np.round((place["ul"][0] - place[name][0]) / 360)
    v, u = (
        ((edge - 0.5) / max(size - 1, 1))[:, None]
        for edge, size in zip((row, col), shape, strict=True)
    )
    top = place["ul"] * (1 - u) + place["ur"] * u
    bottom = place["ll"] * (1 - u) + place["lr"] * u
    lon, lat = (top * (1 - v) + bottom * v).T
    return (lon + 180) % 360 - 180, lat
