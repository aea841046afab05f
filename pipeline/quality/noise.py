"""How much of a tile is noise: what neighbours in space and spectrum do not tell."""

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float64]

BLOCK = 16
"""Pixels along the side of a block; each block has its own regression."""
MIN_PIXELS = 64
"""A block with fewer pixels that count says nothing."""
MIN_FINITE = 0.75
"""A band with a smaller share of finite samples is left out, and its noise is NaN."""
_ITERATIONS = 4
"""More would fit single quiet bands between loud ones ever closer to 0."""


def noise(values: NDArray[np.generic], valid: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return signal and noise (band) in the unit of `values`, by spatial-spectral residuals.

    In every second block of 16 x 16 pixels each band is regressed on the two bands beside it and on
    the mean of the pixels above and below. What is left over has the noise of the band and of its
    regressors; the regression's weights say how much of each, which gives the noise of the bands
    alone. The median over the blocks is returned: an edge or a small bright thing does not count.

    Noise that neighbours share is not seen: stripes along the columns, and what resampling to a map
    has smoothed. The first and the last band have only one beside them, and a quiet band between
    two loud ones has little help against its own texture: these can be wrong by a factor of two and
    more, while the median of the bands is within a few percent.

    Args:
        values: (band, y, x), bands in the order of their wavelengths; NaN where not measured.
        valid: (y, x), pixels that hold a measurement.

    Returns:
        Mean over valid pixels and standard deviation of the noise, float64. Noise is NaN in bands
        of which too little is finite, and where too few pixels are whole, or fewer than three bands
        are there; signal is NaN where nothing is.

    Source: Roger & Arnold 1996, doi:10.1080/01431169608948750: the regression in blocks; here with
        the noise of the regressors taken out.
    """
    finite = np.isfinite(values) & valid
    number = finite.sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        signal = np.where(finite, values, 0).sum(axis=(1, 2), dtype="float64") / number
    found = np.full(len(values), np.nan)
    used = np.flatnonzero(number > MIN_FINITE * np.count_nonzero(valid))
    if len(used) >= 3 and valid.any() and min(valid.shape) >= BLOCK:
        x, counts = _blocks(values[used]), _blocks(finite[used].all(axis=0)[None])
        found[used] = _median_noise(np.where(counts, x, 0).astype("float64"), counts)
    return signal, found


def _blocks[T: np.generic](cube: NDArray[T]) -> NDArray[T]:
    """Return every second whole block (block, band, row, column) of a cube (band, y, x)."""
    rows, cols = (size // BLOCK for size in cube.shape[1:])
    parts = cube[:, : rows * BLOCK, : cols * BLOCK].reshape(len(cube), rows, BLOCK, cols, BLOCK)
    chosen = np.add.outer(np.arange(rows), np.arange(cols)) % 2 == 0
    blocks: NDArray[T] = parts.transpose(1, 3, 0, 2, 4)[chosen]
    return blocks


def _median_noise(x: Floats, counts: NDArray[np.bool_]) -> Floats:
    """Return the noise (band), the median over the blocks that have enough pixels.

    Args:
        x: (block, band, row, column), 0 where a pixel does not count.
        counts: (block, 1, row, column) bool.
    """
    both = counts[:, :, 1:-1] & counts[:, :, :-2] & counts[:, :, 2:]
    mask = both.reshape(*both.shape[:2], -1).astype("float64")
    number = mask.sum(axis=2, keepdims=True)
    some = number[:, 0, 0] >= MIN_PIXELS
    if not some.any():
        return np.full(x.shape[1], np.nan)
    x, mask, number = x[some], mask[some], number[some]
    beside = 0.5 * (x[:, :, :-2] + x[:, :, 2:]).reshape(*x.shape[:2], -1)
    middle = x[:, :, 1:-1].reshape(beside.shape)
    for part in (middle, beside):
        part -= np.einsum("kbn,kcn->kb", part, mask)[..., None] / number
        part *= mask
    weights, residual = _regress(middle, beside)
    variance = residual / (number[..., 0] - 4)
    deviation: Floats = np.median(np.sqrt(_own_variance(variance, weights)), axis=0)
    return deviation


def _regress(x: Floats, beside: Floats) -> tuple[Floats, Floats]:
    """Return weights (block, band, 3) of left, right and `beside`, and squares left over.

    Args:
        x: (block, band, pixel) less its mean; left and right are the bands before and after.
        beside: (block, band, pixel) less its mean.
    """

    def dot(one: Floats, two: Floats, *, lag: int) -> Floats:
        """Return the sums of `one` in each band times `two` in the band `lag` further; else 0."""
        sums = np.zeros(x.shape[:2])
        low, high = max(0, -lag), x.shape[1] - max(0, lag)
        np.einsum("kbn,kbn->kb", one[:, low:high], two[:, low + lag : high + lag],
                  out=sums[:, low:high])  # fmt: skip
        return sums

    own, right = dot(x, x, lag=0), dot(x, x, lag=1)
    left, across = _shift(right, 1), dot(x, x, lag=2)
    target = np.stack([left, right, dot(x, beside, lag=0)], axis=-1)
    gram = np.empty((*own.shape, 3, 3))
    for i, j, value in (
        (0, 0, _shift(own, 1)), (1, 1, _shift(own, -1)), (2, 2, dot(beside, beside, lag=0)),
        (0, 1, _shift(across, 1)), (0, 2, dot(beside, x, lag=-1)), (1, 2, dot(beside, x, lag=1)),
    ):  # fmt: skip
        gram[..., i, j] = gram[..., j, i] = value
    # A trace of ridge keeps systems solvable whose regressors are missing, constant or the same.
    ridge = 1e-10 * np.trace(gram, axis1=-2, axis2=-1) + np.finfo("float64").tiny
    gram += ridge[..., None, None] * np.eye(3)
    weights = np.linalg.solve(gram, target[..., None])[..., 0]
    return weights, np.maximum(own - (weights * target).sum(axis=-1), 0)


def _own_variance(variance: Floats, weights: Floats) -> Floats:
    """Return the noise variance (block, band) whose mix by the weights is the residual variance.

    The mix is own + a^2 left + b^2 right + c^2 / 2 own, as `beside` is a mean of two. It is solved
    by multiplicative steps, which keep variances positive, and held above a quarter of what equal
    noise in the three bands would give: noise that bands share, as resampled ones do, leaves less.
    """
    left, right, aside = np.moveaxis(weights**2, -1, 0)
    equal = variance / (1 + left + right + aside / 2)
    found = variance.copy()
    for _ in range(_ITERATIONS):
        mixed = found * (1 + aside / 2) + left * _shift(found, 1) + right * _shift(found, -1)
        found *= np.divide(variance, mixed, out=np.zeros_like(mixed), where=mixed > 0)
    held: Floats = np.maximum(found, equal / 4)
    return held


def _shift(values: Floats, by: int) -> Floats:
    """Return `values` (block, band) moved by one band up (1) or down (-1); 0 comes in."""
    out = np.zeros_like(values)
    if by > 0:
        out[:, 1:] = values[:, :-1]
    else:
        out[:, :-1] = values[:, 1:]
    return out
