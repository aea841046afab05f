"""Batches of a stream: what it gives, and how it is filled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from storage.buffers import Buffers
from storage.schema import TILE_SIZE, DamagedError
from storage.windows import Windows


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch."""

    tiles: np.ndarray
    """(sample, band, y, x) in the stored dtype, or float32 [physical units] if scaled."""

    band_start: np.ndarray
    """First band of each sample's window (sample), counted from 0 in the sensor's list."""

    wavelength: np.ndarray
    """Of each sample's bands (sample, band) [nm], float32."""

    rows: np.ndarray
    """Index rows (sample)."""

    tile_ids: list[str]
    sensor: list[str]
    epoch: int
    position: int
    """Samples of the epoch, over all ranks, that come before this global batch."""

    source: np.ndarray
    """Number of the set that each sample is of (sample)."""
    padding: np.ndarray
    """Samples that complete the epoch's last batch and were given before (sample), bool."""
    valid: np.ndarray | None
    """The store's mask (sample, y, x), bool; None if it was not asked for."""
    damaged: tuple[str, ...]
    """Tiles that were to be here and could not be read."""
    after: dict[str, int]
    """State to go on from after this batch, see `Stream.state_dict`."""


@dataclass
class Samples:
    """Of a batch, while it is read."""

    tiles: np.ndarray
    start: np.ndarray
    wavelength: np.ndarray
    valid: np.ndarray | None
    names: list[str]
    sensor: list[str]
    errors: list[DamagedError | None]

    @classmethod
    def empty(
        cls, count: int, bands: int, dtype: np.dtype[Any], *, valid: bool, buffers: Buffers
    ) -> Self:
        """Return room for `count` samples."""
        return cls(
            tiles=buffers.empty((count, bands, TILE_SIZE, TILE_SIZE), dtype),
            start=np.empty(count, np.int64),
            wavelength=np.empty((count, bands), np.float32),
            valid=np.empty((count, TILE_SIZE, TILE_SIZE), bool) if valid else None,
            names=[""] * count,
            sensor=[""] * count,
            errors=[None] * count,
        )

    def read(
        self,
        windows: Windows,
        places: np.ndarray,
        rows: np.ndarray,
        start: np.ndarray,
        *,
        scaled: bool,
    ) -> None:
        """Read samples of one set to their places."""
        bands = self.tiles.shape[1]
        self.start[places] = start
        if self.valid is not None:
            self.valid[places] = windows.masks(rows)
        into = [self.tiles[place] for place in places]
        errors = windows.read(rows.tolist(), start.tolist(), into, scaled=scaled)
        about = zip(places.tolist(), windows.spectra(rows), start.tolist(),
                    windows.names(rows), windows.sensor[rows].tolist(), errors,
                    strict=True)  # fmt: skip
        for place, wavelength, first, name, sensor, error in about:
            self.wavelength[place] = wavelength[first : first + bands]
            self.names[place], self.sensor[place] = name, windows.sensors[sensor]
            self.errors[place] = error

    def take(self, places: np.ndarray) -> Self:
        """Return some of them."""
        columns = (self.tiles, self.start, self.wavelength)
        tiles, start, wavelength = (column[places] for column in columns)
        return type(self)(
            tiles,
            start,
            wavelength,
            valid=None if self.valid is None else self.valid[places],
            names=[self.names[place] for place in places],
            sensor=[self.sensor[place] for place in places],
            errors=[None] * len(places),
        )


def too_many(skipped: Sequence[str], most: int, last: str = "the log says why") -> DamagedError:
    """Return the error of a stream that left out more tiles than it may.

    Args:
        skipped: Tiles.
        most: That may be.
        last: Why the last one could not be read.
    """
    return DamagedError(
        f"{len(skipped)} tiles could not be read, expected at most {most}; such as "
        f"{', '.join(skipped[:5])}: {last}; write the set again, or allow more (`damaged`)"
    )
