"""Splits by place: which part of the Earth is for training, validation and test.

Stateless: a tile's split follows from its place and the configuration alone, so it stays the
same when scenes are added, and two scenes of one place never differ.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import field

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pipeline.ellipsoid import MERIDIAN_M_PER_DEGREE
from storage.schema import SPLITS

Floats = NDArray[np.float64]
BORDER = ""
"""Instead of a split's name: the tile reaches into blocks of several splits."""

_KM_PER_DEGREE = 111.19508
"""Of latitude, on the sphere of radius 6371.0088 km."""
# The R2 sequence, a two-dimensional low-discrepancy sequence: neighbouring blocks get values far
# apart, so that few blocks already have about the wanted shares.
_STEP_ROW, _STEP_COL = 0.7548776662466927, 0.5698402909980532


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SplitConfig:
    """How the Earth is divided.

    Raises:
        ValueError: Shares that are not of train, val and test, or do not add up to 1.
    """

    block_km: float = 10.0
    """Side of a block, all of which is in one split."""
    guard_m: float = 500.0
    """A tile nearer than this to a block of another split is left out."""
    fractions: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.8, "val": 0.1, "test": 0.1}
    )
    seed: int = 0

    def __post_init__(self) -> None:
        shares = self.fractions
        if set(shares) - set(SPLITS) or min(shares.values(), default=-1) < 0:
            raise ValueError(f"fractions must be shares of {SPLITS}, got {dict(shares)}")
        if abs(sum(shares.values()) - 1) > 1e-9:
            raise ValueError(f"fractions must add up to 1, got {sum(shares.values())}")
        if self.block_km <= 0 or self.guard_m < 0:
            raise ValueError(
                "block_km must be positive and guard_m not negative, "
                f"got {self.block_km} and {self.guard_m}"
            )


def assign(config: SplitConfig, lon: Floats, lat: Floats) -> NDArray[np.str_]:
    """Return the split of each tile, or `BORDER` if it is not clearly in one.

    A tile is in a split if the box around its corners, widened by the guard distance on each
    side, touches blocks of that split alone; so tiles of two splits are at least twice the guard
    distance apart.

    Args:
        config: How the Earth is divided.
        lon: Corners (tile, 4) [deg].
        lat: Corners (tile, 4) [deg].

    Raises:
        ValueError: A widened tile is larger than a block.
    """
    # Corners on both sides of the date line are brought to the first one's side.
    lon = lon[:, :1] + (lon - lon[:, :1] + 180) % 360 - 180
    # Not the sphere's: near the equator a degree of latitude is half a percent shorter.
    guard = config.guard_m / MERIDIAN_M_PER_DEGREE
    south, north = lat.min(axis=1) - guard, lat.max(axis=1) + guard
    widest = np.cos(np.radians(np.minimum(np.maximum(abs(south), abs(north)), 89.9)))
    west, east = lon.min(axis=1) - guard / widest, lon.max(axis=1) + guard / widest
    size = np.maximum(north - south, (east - west) * widest) * _KM_PER_DEGREE
    if size.size and size.max() > config.block_km:
        raise ValueError(
            f"block_km must be at least {size.max():.2f} to hold a tile and its guard of "
            f"{config.guard_m} m on each side, got {config.block_km}"
        )
    # No larger than a block: two rows of blocks at most, in each two blocks, rarely three.
    points = [(x, y) for y in (south, north) for x in (west, (west + east) / 2, east)]
    splits = [split_at(config, x, y) for x, y in points]
    same = np.all([split == splits[0] for split in splits], axis=0)
    return np.where(same, splits[0], BORDER)


def split_at(config: SplitConfig, lon: Floats, lat: Floats) -> NDArray[np.str_]:
    """Return the splits of the blocks in which points lie; `lon`, `lat` [deg] of one shape.

    Blocks are rows of equal height, each cut into a whole number of blocks as wide as high at
    the row's middle (a sinusoidal grid).
    """
    height = config.block_km / _KM_PER_DEGREE
    row = np.floor(lat / height)
    middle = np.radians(np.clip((row + 0.5) * height, -89.9, 89.9))
    count = np.maximum(1, np.round(360 / height * np.cos(middle)))
    col = np.floor((lon + 180) % 360 / 360 * count)
    digest = hashlib.sha256(str(config.seed).encode()).digest()
    start = int.from_bytes(digest[:8], "big") / 2**64
    draw = (row * _STEP_ROW + col * _STEP_COL + start) % 1
    shares = np.cumsum([config.fractions.get(split, 0.0) for split in SPLITS])
    return np.array(SPLITS)[np.searchsorted(shares[:-1], draw, side="right")]
