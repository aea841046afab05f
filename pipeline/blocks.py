"""The blocks of the map grid: rows of equal height, each cut into blocks as wide as high."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KM_PER_DEGREE = 111.19508
"""Of latitude, on the sphere of radius 6371.0088 km."""
# The R2 sequence, a two-dimensional low-discrepancy sequence: neighbouring blocks get values far
# apart, so that few blocks already have about the wanted shares.
_STEP_ROW, _STEP_COL = 0.7548776662466927, 0.5698402909980532


def columns(row: Floats, block_km: float) -> Floats:
    """Return how many blocks are in each row (a sinusoidal grid); row 0 begins at the equator."""
    height = block_km / KM_PER_DEGREE
    middle = np.radians(np.clip((row + 0.5) * height, -89.9, 89.9))
    return np.maximum(1, np.round(360 / height * np.cos(middle)))


def block_of(lon: Floats, lat: Floats, block_km: float) -> tuple[Floats, Floats]:
    """Return row and column of the blocks in which points lie; `lon`, `lat` [deg] of one shape."""
    row = np.floor(lat / (block_km / KM_PER_DEGREE))
    return row, np.floor((lon + 180) % 360 / 360 * columns(row, block_km))


def draw(row: Floats, col: Floats, seed: int | str) -> Floats:
    """Return a number in [0, 1) for each block, spread evenly over blocks near one another."""
    digest = hashlib.sha256(str(seed).encode()).digest()
    start = int.from_bytes(digest[:8], "big") / 2**64
    return (row * _STEP_ROW + col * _STEP_COL + start) % 1
