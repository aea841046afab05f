"""Mean and standard deviation a band, in one pass over tiles, exact to float64 rounding."""

from dataclasses import dataclass

import numpy as np

from storage.schema import INTEGER_FILL


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of the valid pixels, each (band)."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of the population (band), 0 where there is no pixel."""
        return np.asarray(np.sqrt(self.squares / np.maximum(self.count, 1)))


def no_moments(bands: int) -> Moments:
    """Return the moments of nothing."""
    return Moments(np.zeros(bands, np.int64), np.zeros(bands), np.zeros(bands))


def tile_moments(tile: np.ndarray, valid: np.ndarray) -> Moments:
    """Return the moments of one tile (band, y, x) over what is measured in its valid (y, x).

    NaN, or in integer tiles `INTEGER_FILL`, is no measurement.
    """
    pixels = tile[:, valid].astype(np.float64)
    good = np.isfinite(pixels)
    if tile.dtype.kind == "i":
        good &= ~np.isin(pixels, INTEGER_FILL)
    count = good.sum(axis=1)
    mean = np.where(good, pixels, 0).sum(axis=1) / np.maximum(count, 1)
    squares = np.where(good, (pixels - mean[:, None]) ** 2, 0).sum(axis=1)
    return Moments(count, mean, squares)


def merge(a: Moments, b: Moments) -> Moments:
    """Return the moments of both sets of pixels together.

    Source: Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115, formula (2.1).
    """
    count = a.count + b.count
    share = b.count / np.maximum(count, 1)
    delta = b.mean - a.mean
    return Moments(
        count, a.mean + delta * share, a.squares + b.squares + delta**2 * a.count * share
    )
