"""Where the pixels of a scene lie: map grids with a tilted footprint, and sensor grids."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as warp

from pipeline.synth.arrays import Bools, Floats, Ints
from pipeline.synth.plan import Plan
from pipeline.synth.world import degrees, kilometres

PIXEL = 30.0
"""Side of a pixel [m]."""


@dataclass(frozen=True)
class Grid:
    """The pixels of one product, arrays (y, x)."""

    lon: Floats
    """Longitude of the pixel's centre [deg]."""
    lat: Floats
    """Latitude of the pixel's centre [deg]."""
    valid: Bools
    """Whether the sensor saw the pixel."""
    sample: Ints
    """Detector column that saw it; 0 outside."""
    columns: int
    """Number of detector columns."""
    crs: CRS | None = None
    transform: Affine | None = None
    """Of a map grid."""


def map_grid(plan: Plan, shape: tuple[int, int], footprint: tuple[int, int], tilt: float) -> Grid:
    """Return a north-up 30 m UTM grid around the scene's centre.

    Args:
        plan: The scene.
        shape: Rows and columns of the grid.
        footprint: Lines and samples of the sensor's frame, which lies inside the grid.
        tilt: By how much the frame is turned clockwise [deg].
    """
    crs = CRS.from_epsg(32600 + int((plan.lon + 180) // 6) + 1)
    (x0,), (y0,) = warp("EPSG:4326", crs, [plan.lon], [plan.lat])
    left = round(x0 / PIXEL - shape[1] / 2) * PIXEL
    top = round(y0 / PIXEL + shape[0] / 2) * PIXEL
    transform = Affine(PIXEL, 0.0, left, 0.0, -PIXEL, top)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    xs = left + PIXEL * (columns.ravel() + 0.5)
    ys = top - PIXEL * (rows.ravel() + 0.5)
    lon, lat = (
        np.reshape(values, shape) for values in warp(crs, "EPSG:4326", xs.tolist(), ys.tolist())
    )
    line, sample = _frame_position(plan, lon, lat, tilt)
    line, sample = line + footprint[0] / 2, sample + footprint[1] / 2
    valid = (line >= 0) & (line < footprint[0]) & (sample >= 0) & (sample < footprint[1])
    detector = np.where(valid, sample, 0).astype(int)
    return Grid(lon, lat, valid, detector, footprint[1], crs, transform)


def frame_grid(plan: Plan, shape: tuple[int, int], tilt: float, *, lost_lines: int) -> Grid:
    """Return a sensor grid of `shape` (lines, samples); its last `lost_lines` were not taken."""
    line, sample = np.mgrid[: shape[0], : shape[1]].astype(float)
    lon, lat = frame_lonlat(plan, shape, tilt, (line, sample))
    valid = line < shape[0] - lost_lines
    return Grid(lon, lat, valid, sample.astype(int), shape[1])


def frame_lonlat[T: (float, Floats)](
    plan: Plan, shape: tuple[int, int], tilt: float, pixels: tuple[T, T]
) -> tuple[T, T]:
    """Return longitude and latitude of (line, sample), counted from the first pixel's centre."""
    down = (pixels[0] - (shape[0] - 1) / 2) * PIXEL / 1000
    right = (pixels[1] - (shape[1] - 1) / 2) * PIXEL / 1000
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    east0, north0 = kilometres(plan.lon, plan.lat)
    return degrees(east0 + right * cos - down * sin, north0 - right * sin - down * cos)


def _frame_position(plan: Plan, lon: Floats, lat: Floats, tilt: float) -> tuple[Floats, Floats]:
    """Return how many pixels `lon`, `lat` lie below and to the right of the frame's centre."""
    east, north = kilometres(lon, lat)
    east0, north0 = kilometres(plan.lon, plan.lat)
    east, north = (east - east0) * 1000 / PIXEL, (north - north0) * 1000 / PIXEL
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    return -east * sin - north * cos, east * cos - north * sin
