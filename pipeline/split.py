"""Splits by place: which part of the Earth is for training, validation and test.

Stateless: a tile's split follows from its place and the configuration alone (with the land mask
that it may name), so it stays the same when scenes are added, and two scenes of one place never
differ, whatever their dates and sensors.
"""

from collections.abc import Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pipeline import land, strata
from pipeline.blocks import KM_PER_DEGREE, Floats, block_of, draw
from pipeline.ellipsoid import MERIDIAN_M_PER_DEGREE
from storage.schema import SPLITS

BORDER = ""
"""Instead of a split's name: the tile reaches into blocks of several splits."""


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
    """Of blocks, that is of the ground. Of tiles the largest split has more: its blocks border on
    each other more often, and only tiles between blocks of two splits are left out."""
    seed: int = 0
    land_mask: Path | None = None
    """A GeoTIFF (non-zero is land) or GeoJSON polygons: blocks on land, on water and of both then
    have each about the wanted shares, in every neighbourhood. None: blocks are all alike."""
    land_mask_sha256: str = ""
    """What that file must have; "": it is taken as it is."""

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
        if self.land_mask_sha256 and self.land_mask is None:
            raise ValueError(
                f"land_mask_sha256 needs land_mask, the file, got {self.land_mask_sha256} alone"
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
        FileNotFoundError: There is no land mask where the config says so.
        ValueError: A widened tile is larger than a block; or as `split_at`.
    """
    # Corners on both sides of the date line are brought to the first one's side.
    lon = lon[:, :1] + (lon - lon[:, :1] + 180) % 360 - 180
    # Not the sphere's: near the equator a degree of latitude is half a percent shorter.
    guard = config.guard_m / MERIDIAN_M_PER_DEGREE
    south, north = lat.min(axis=1) - guard, lat.max(axis=1) + guard
    widest = np.cos(np.radians(np.minimum(np.maximum(abs(south), abs(north)), 89.9)))
    west, east = lon.min(axis=1) - guard / widest, lon.max(axis=1) + guard / widest
    size = np.maximum(north - south, (east - west) * widest) * KM_PER_DEGREE
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

    Raises:
        FileNotFoundError: There is no land mask where the config says so.
        ValueError: It is no land mask, or not the one that was pinned.
    """
    row, col = block_of(lon, lat, config.block_km)
    if config.land_mask is None:
        value = draw(row, col, config.seed)
    else:
        mask = land.load(config.land_mask, config.land_mask_sha256)
        value = strata.draws(row, col, mask, block_km=config.block_km, seed=config.seed)
    shares = np.cumsum([config.fractions.get(split, 0.0) for split in SPLITS])
    return np.array(SPLITS)[np.searchsorted(shares[:-1], value, side="right")]


def pinned(config: SplitConfig) -> SplitConfig:
    """Return the config with the land mask's place and checksum, for use by other processes.

    Raises:
        FileNotFoundError: There is no land mask where the config says so.
        ValueError: It is no land mask, or not the one that was pinned.
    """
    if config.land_mask is None:
        return config
    mask = land.load(config.land_mask, config.land_mask_sha256)
    return replace(config, land_mask=mask.path.absolute(), land_mask_sha256=mask.sha256)


def record(config: SplitConfig) -> dict[str, Any]:
    """Return all that splits follow from, as plain data: of a land mask the checksum alone.

    Raises:
        FileNotFoundError: There is no land mask where the config says so.
        ValueError: It is no land mask, or not the one that was pinned.
    """
    found = {**asdict(config), "fractions": dict(config.fractions)}
    del found["land_mask"], found["land_mask_sha256"]
    sha256 = pinned(config).land_mask_sha256
    return {**found, "land_mask": sha256} if sha256 else found
