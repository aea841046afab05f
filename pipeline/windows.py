"""Where the windows of a scene begin, where they lie on Earth, and which of them can be tiles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ellipsoid import cartesian, plane
from pipeline.geolocation import Floats, lonlat
from storage.schema import FOOTPRINT_COORDS, TILE_SIZE

Assign = Callable[[Floats, Floats], NDArray[np.str_]]
"""Corner lon, lat (tile, 4) [deg] -> a split's name, or "" for a tile between two."""


@dataclass(frozen=True)
class Windows:
    """All whole windows of a scene, row by row; all arrays (window)."""

    row: NDArray[np.int64]
    """Of the corner, in the scene's grid."""
    col: NDArray[np.int64]
    """Of the corner, in the scene's grid."""
    lon: Floats
    """Of the centre [deg], NaN if unknown."""
    lat: Floats
    """Of the centre [deg], NaN if unknown."""
    footprint: dict[str, NDArray[np.float32]]
    """The columns `FOOTPRINT_COORDS` [m], NaN if unknown."""
    split: NDArray[np.str_]
    """"" if it is in none."""
    reason: NDArray[np.str_]
    """Why it can be no tile, by its place alone: `no_place`, `split_border`; "" if it can."""


def windows(
    attrs: Mapping[str, Any],
    shape: tuple[int, int],
    assign: Assign,
    *,
    stride: int = TILE_SIZE,
    edges: bool = False,
) -> Windows:
    """Return the windows of a scene of `shape` (y, x); looks at no pixel.

    Args:
        attrs: The scene's, which say where it lies.
        shape: Of its grid.
        assign: Gives each window its split by its corners.
        stride: Pixels from one window to the next.
        edges: Add windows that end at the right and bottom edge.
    """
    rows, cols = _corners(shape, stride, edges=edges)
    # The four corners, and the centre last; positions count from pixel edges.
    down, across = np.array([0, 0, 1, 1, 0.5]), np.array([0, 1, 0, 1, 0.5])
    lon, lat = lonlat(
        attrs, shape, rows[:, None] + TILE_SIZE * down, cols[:, None] + TILE_SIZE * across
    )
    known = np.isfinite(lon + lat).all(axis=1)
    lon, lat = (np.where(known[:, None], place, np.nan) for place in (lon, lat))
    split = np.full(rows.size, "", "U5")
    if known.any():
        split[known] = assign(lon[known, :4], lat[known, :4])
    reason = np.select([~known, split == ""], ["no_place", "split_border"], "")
    return Windows(rows, cols, lon[:, 4], lat[:, 4], _footprint(lon, lat), split, reason)


def _footprint(lon: Floats, lat: Floats) -> dict[str, NDArray[np.float32]]:
    """Return the parallelograms nearest to tiles, as `FOOTPRINT_COORDS`.

    Args:
        lon: Upper left, upper right, lower left, lower right corner and centre (tile, 5) [deg].
        lat: Likewise.
    """
    here = plane(lon[:, 4], lat[:, 4])
    corners = cartesian(lon[:, :4], lat[:, :4]) - cartesian(lon[:, 4:], lat[:, 4:])
    found = {}
    for way, signs in (("right", (-1, 1, -1, 1)), ("down", (-1, -1, 1, 1))):
        mean = (np.array(signs)[:, None] * corners).sum(axis=1) / 4
        for axis, name in enumerate(("east", "north")):
            found[f"{way}_{name}"] = (mean * here[axis]).sum(axis=1).astype("f4")
    return {name: found[name] for name in FOOTPRINT_COORDS}


def _corners(
    shape: tuple[int, int], stride: int, *, edges: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of every whole window, row by row."""
    starts = [np.arange(0, size - TILE_SIZE + 1, stride) for size in shape]
    if edges:
        starts = [
            np.union1d(start, [size - TILE_SIZE]) if size >= TILE_SIZE else start
            for start, size in zip(starts, shape, strict=True)
        ]
    rows, cols = np.meshgrid(*starts, indexing="ij")
    return rows.ravel(), cols.ravel()
