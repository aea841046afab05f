"""Whether a tile is kept: means over windows, measures of pixels, and limits on both."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.quality.noise import noise
from pipeline.quality.stripes import stripe_index
from storage.schema import TILE_SIZE

Floats = NDArray[np.float64]
Limits = Mapping[Literal["min", "max"], float]
Measure = Literal["snr", "stripe_index"]


def check_limits(column: str, limits: Limits) -> None:
    """Check the limits on a column.

    Raises:
        ValueError: There is none, or one that is not finite, or the smallest over the largest.
    """
    if not limits or not set(limits) <= {"min", "max"}:
        raise ValueError(f"keep {column}: expected min, max or both, got {dict(limits)}")
    if not all(np.isfinite(value) for value in limits.values()):
        raise ValueError(f"keep {column}: expected finite limits, got {dict(limits)}")
    if limits.get("min", -np.inf) > limits.get("max", np.inf):
        raise ValueError(f"keep {column}: expected min <= max, got {dict(limits)}")


def broken(
    found: Mapping[str, NDArray[Any]], columns: Sequence[str], keep: Mapping[str, Limits], i: int
) -> str:
    """Return the first of `columns` whose limits a tile does not keep, "" if none.

    Args:
        found: Columns (tile).
        columns: Which of them to look at.
        keep: Limits by column.
        i: Which tile. NaN, what could not be told, is within any largest and under any smallest.
    """
    for column, limits in keep.items():
        if column in columns:
            value = found[column][i]
            # Not `value < min`: of a value that is NaN nobody knows that it is enough.
            if ("min" in limits and not value >= limits["min"]) or value > limits.get(
                "max", np.inf
            ):
                return column
    return ""


def window_mean(image: NDArray[Any], rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
    """Return the mean of `image` (y, x) in each window, by sums over all that is above and left."""
    total = np.zeros((image.shape[0] + 1, image.shape[1] + 1), "int64")
    np.cumsum(np.cumsum(image, axis=0, dtype="int64"), axis=1, out=total[1:, 1:])
    low, right = rows + TILE_SIZE, cols + TILE_SIZE
    inside = total[low, right] - total[rows, right] - total[low, cols] + total[rows, cols]
    return inside / TILE_SIZE**2


def _snr(values: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    signal, deviation = noise(values, valid)
    # A band without noise has too coarse a step to tell.
    known = deviation > 0
    return float(np.median(signal[known] / deviation[known])) if known.any() else np.nan


def _stripe_index(values: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    found = stripe_index(values, valid)
    return float(np.median(found[np.isfinite(found)])) if np.isfinite(found).any() else np.nan


MEASURES: dict[str, Callable[[NDArray[Any], NDArray[np.bool_]], float]] = {
    "snr": _snr,
    "stripe_index": _stripe_index,
}
"""Of a tile's values (band, 64, 64) and valid pixels (64, 64)."""
