"""How strong the column stripes of an image are.

A column of a pushbroom image is one detector per band. Its statistics deviate from those of the
columns beside it for two reasons: its gain is off, or the ground differs. The second shows along
track as well, where there are no stripes, and neighbouring bands share it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
"""Columns that are averaged where the ground is looked at along track."""
_MEAN_TO_SIGMA = float(np.sqrt(np.pi / 2))
"""Standard deviation over mean absolute deviation of a normal distribution."""

_LEAST = 8
"""Fewest columns and rows of an image that can be judged."""

type Floats = NDArray[np.float64]


def stripe_index(values: NDArray[Any], valid: NDArray[np.bool_]) -> Floats:
    """Return the spread of the columns' gains about their neighbours' (band) [1].

    Each column's mean is compared with those of the columns beside it, relative to their level.
    What the two nearest bands predict of that is ground and taken off; how much they predict is
    learnt along track. The index is the standard deviation, from mean absolute deviations, of
    independent column gains that leave as much as is left. Noise alone gives about its standard
    deviation over the level, over the root of the number of rows. It does not change with gain.

    Where neighbouring bands are alike, a stripe that they all share is ground to it. NaN where a
    band has no finite, positive level, or the image has fewer than 8 rows or columns.

    Args:
        values: Numbers in proportion to light (band, y, x).
        valid: Pixels that count (y, x).

    Source: column moments against local ones are those of Datt et al. 2003,
        doi:10.1109/TGRS.2003.813206; the prediction from neighbouring bands is ours.
    """
    if min(valid.shape) < _LEAST or not len(values):
        return np.full(len(values), np.nan)
    columns, along = profiles(values, valid)
    return index_of(columns, curvature_products(along))


def profiles(values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return means per column (band, x) and, in each 64 columns, per row (band, block, y).

    NaN where fewer than half of a block's pixels, or none of a column's, are valid, or a valid one
    is not finite.
    """
    if not valid.all():
        values = np.where(valid, values, values.dtype.type(0))
    bands, rows, width = values.shape
    block = min(BLOCK, max(width, 1))
    blocks = width // block
    kept = values[..., : blocks * block].reshape(bands, rows, blocks, block)
    counts = valid[:, : blocks * block].reshape(rows, blocks, block).sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = values.sum(axis=1, dtype="float64") / valid.sum(axis=0)
        along = kept.sum(axis=3, dtype="float64") / np.where(counts < block / 2, 0, counts)
        along[:, counts < block / 2] = np.nan
    return columns, along.transpose(0, 2, 1)


def curvature_products(along: Floats) -> Floats:
    """Return the sums of products (band, band) [1] of the curvatures along track of row means."""
    bent = curvature(along).reshape(len(along), -1)
    bent = np.where(np.isfinite(bent), bent, 0)
    products: Floats = bent @ bent.T
    return products


def index_of(columns: Floats, products: Floats) -> Floats:
    """Return `stripe_index` from column means (band, x) and `curvature_products`."""
    found = np.full(len(columns), np.nan)
    if columns.shape[1] < _LEAST:
        return found
    across = curvature(columns)
    live = np.flatnonzero(np.isfinite(across).sum(axis=1) >= _LEAST - 2)
    if not len(live):
        return found
    beside, weights = _prediction(live, products)
    near = np.where(np.isfinite(across), across, 0)[beside]
    left = across[live] - weights[0][:, None] * near[0] - weights[1][:, None] * near[1]
    left = np.abs(left - np.nanmedian(left, axis=1, keepdims=True))
    # 1.5 is the variance of a curvature where each column's is 1.
    spread = _MEAN_TO_SIGMA * np.nanmean(left, axis=1)
    found[live] = spread / np.sqrt(1.5 * (1 + (weights**2).sum(axis=0)))
    return found


def curvature(profile: Floats) -> Floats:
    """Return how far each value is from the mean of the two beside it, over their level [1].

    Along the last axis, which gets shorter by two; NaN where the level is not positive.
    """
    before, here, after = profile[..., :-2], profile[..., 1:-1], profile[..., 2:]
    with np.errstate(invalid="ignore", divide="ignore"):
        level = (before + 2 * here + after) / 4
        return np.where(level > 0, (here - (before + after) / 2) / level, np.nan)


def _prediction(live: NDArray[np.intp], products: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return for each live band two others (2, band) and their least-squares weights (2, band).

    They are the nearest live bands on both sides, at an end the two nearest.
    """
    places = np.arange(len(live))
    if len(live) < 3:
        return np.stack([live, live]), np.zeros((2, len(live)))
    # Before and after; at an end, one step and two steps inwards.
    first = live[np.where(places == 0, 1, places - 1)]
    last = places == len(live) - 1
    inner = np.minimum(places + 1, len(live) - 1)
    second = live[np.where(places == 0, 2, np.where(last, len(live) - 3, inner))]
    a, b, c = products[first, first], products[first, second], products[second, second]
    u, v = products[first, live], products[second, live]
    # A little is added lest two bands that are one to the other make it singular.
    ridge = 1e-9 * (a + c) + 1e-30
    a, c = a + ridge, c + ridge
    determinant = a * c - b * b
    weights = np.stack([(c * u - b * v) / determinant, (a * v - b * u) / determinant])
    return np.stack([first, second]), weights
