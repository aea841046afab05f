"""Count, mean and squared deviations of measured pixels, of parts and of the whole."""

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


def whole_moments(tile: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return count, sum and sum of squares (3, band), int64, of an int16 tile, as `tile_moments`.

    Exact, so that they may be added in any order.
    """
    good = valid & (tile != INTEGER_FILL[0]) & (tile != INTEGER_FILL[1])
    flat = good.reshape(len(tile), -1)
    pixels = np.where(good, tile, 0).reshape(len(tile), -1).astype(np.int32)
    squares = np.einsum("bp,bp->b", pixels, pixels, dtype=np.int64)
    return np.stack([flat.sum(axis=1), pixels.sum(axis=1, dtype=np.int64), squares])


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
