"""Gains of the columns of a pushbroom image, from statistics gathered in one pass over it.

Local moment matching wants to know what a column's mean would be if its detector were as its
neighbours. The ground differs from column to column by more than good detectors do, so the
columns' differences are split into gains and ground by what is known of each:

- Gains are independent from band to band and column to column, of some spread in a band.
- The ground's differences across track are spread over the spectrum as those along track, where
  a detector is compared with itself: their covariance between bands is measured there.

The split is the most likely one (Gaussian conditioning). Where the ground varies little, a gain
is found to the noise of the mean; what looks like ground in all bands together is left alone.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.quality.stripes import BLOCK, Floats, curvature_products, index_of, profiles

MIN_PIXELS = 32
"""Fewest usable pixels of a column that is judged."""
_GROUND = 4.0
"""Variance, over a gain's, from which on a direction of the spectrum is taken for ground."""
_STRONG = 2.5
"""Deviation of a strong stripe, in standard deviations of the band's gains."""
_BOUNDARY = 6.0
"""Mean square of a difference in the ground's directions, over its variance, at a boundary."""


@dataclass
class ColumnStatistics:
    """Sums over a scene's rows of `bands` bands and `width` columns; some rows are added at a time.

    The size does not depend on the number of rows.
    """

    bands: int
    width: int
    sums: Floats = field(init=False)
    """Over the usable pixels (band, x)."""
    counts: Floats = field(init=False)
    """Usable pixels (x)."""
    steps: Floats = field(init=False)
    """Products (band, band) [1] of relative differences along track, of means over 64 columns."""
    curvatures: Floats = field(init=False)
    """The same of curvatures, see `curvature_products`."""
    samples: int = 0
    """Differences in `steps`."""

    def __post_init__(self) -> None:
        self.sums = np.zeros((self.bands, self.width))
        self.counts = np.zeros(self.width)
        self.steps = np.zeros((self.bands, self.bands))
        self.curvatures = np.zeros((self.bands, self.bands))

    def add(self, values: NDArray[Any], usable: NDArray[np.bool_]) -> None:
        """Take in the rows `values` (band, y, x) where `usable` (y, x); they need not be finite."""
        columns, along = profiles(values, usable)
        count = usable.sum(axis=0)
        self.sums += np.where(count > 0, columns * count, 0)
        self.counts += count
        relative = _relative_steps(along).reshape(self.bands, -1)
        relative = relative[:, np.isfinite(relative).any(axis=0)]
        relative = np.where(np.isfinite(relative), relative, 0)
        self.steps += relative @ relative.T
        self.samples += relative.shape[1]
        if along.shape[2] > 2:
            self.curvatures += curvature_products(along)

    def means(self) -> Floats:
        """Return the mean of each column (band, x), NaN of those with too few pixels."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.counts >= MIN_PIXELS, self.sums / self.counts, np.nan)


@dataclass(frozen=True)
class ColumnGains:
    """What the statistics say of each column."""

    gain: Floats
    """Relative to the neighbours (band, x) [1]; 1 where nothing is known."""
    noise: Floats
    """Standard deviation of a gain from noise alone (band) [1]; infinite in unjudged bands."""
    uncertainty: Floats
    """Standard deviation of a gain from noise and ground (band) [1]; infinite in unjudged bands."""
    boundaries: NDArray[np.bool_]
    """Between column x and x + 1 (x - 1): the ground changes along the whole of it."""


def column_gains(statistics: ColumnStatistics, ignored: NDArray[np.bool_]) -> ColumnGains:
    """Return the gains that part the columns' differences best from the ground's.

    Args:
        statistics: Of at least `MIN_PIXELS` pixels in some columns.
        ignored: Samples (band, x) that are no measurements: bad detectors. A band without a
            finite and positive mean is left alone, too.
    """
    bands, width = statistics.bands, statistics.width
    gain, noise = np.ones((bands, width)), np.full(bands, np.inf)
    uncertainty = noise.copy()
    boundaries = np.zeros(max(width - 1, 0), bool)
    means = statistics.means()
    # Bad detectors are bridged: their neighbours' mean stands in and no gain is given out.
    columns = bridged(means, ignored)
    with np.errstate(invalid="ignore"):
        judged = np.flatnonzero(np.isfinite(columns).any(axis=1) & (np.nanmax(
            np.where(np.isfinite(columns), columns, -np.inf), axis=1) > 0))  # fmt: skip
    if not len(judged) or statistics.samples < 2 or width < 8:
        return ColumnGains(gain, noise, uncertainty, boundaries)
    scale = min(BLOCK, width) / np.median(statistics.counts[statistics.counts >= MIN_PIXELS])
    ground = statistics.steps[np.ix_(judged, judged)] / statistics.samples * scale
    floor = _unpredictable(ground, statistics.samples)
    curvatures = statistics.curvatures[np.ix_(judged, judged)]
    columns = columns[judged]
    strong = np.zeros_like(columns)
    # Few strong stripes make the gains' spread large and the ground look small beside it: they
    # are taken out first.
    for last in (False, False, True):
        left = columns * np.exp(-strong)
        spread = np.nan_to_num(index_of(left, curvatures)) ** 2 - floor / 2
        spread = np.maximum(spread, floor / 2)
        weak, uncertainty[judged], boundaries = _split(_relative_steps(left), ground, spread, floor)
        sure = np.abs(weak) > _STRONG * np.sqrt(spread)[:, None]
        strong += np.where(sure | last, weak, 0)
    gain[judged] = np.exp(np.where(ignored[judged], 0, strong))
    noise[judged] = np.sqrt(floor / 2)
    return ColumnGains(gain, noise, uncertainty, boundaries)


def bridged(columns: Floats, ignored: NDArray[np.bool_]) -> Floats:
    """Return `columns` (band, x) with the ignored ones put on a line between their neighbours."""
    columns = columns.copy()
    for band in np.flatnonzero(ignored.any(axis=1)):
        bad = ignored[band]
        good = ~bad & np.isfinite(columns[band])
        if good.any():
            columns[band, bad] = np.interp(
                np.flatnonzero(bad), np.flatnonzero(good), columns[band, good]
            )
    return columns


def _relative_steps(profile: Floats) -> Floats:
    """Return the differences of successive values over their mean [1]; NaN where that is not > 0.

    To first order the logarithm of their ratio, and defined for values near zero.
    """
    level = (profile[..., 1:] + profile[..., :-1]) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(level > 0, np.diff(profile, axis=-1) / level, np.nan)


def _unpredictable(covariance: Floats, samples: int) -> Floats:
    """Return the variance of each band (band) that others do not predict: noise.

    The others are those around it, at most one for four samples: more would fit the noise.
    """
    size = len(covariance)
    loaded = covariance + np.diag(np.diag(covariance) * 1e-6 + 1e-12)
    around = max(1, samples // 8)
    left = np.empty(size)
    for band in range(size):
        near = slice(max(0, band - around), band + around + 1)
        inverse = np.linalg.inv(loaded[near, near])
        left[band] = 1 / inverse[band - near.start, band - near.start]
        if near.start == 0 and near.stop >= size:
            left = 1 / np.diag(inverse)
            break
    # The fit to a sample takes off one of its degrees of freedom a band.
    fitted = min(size, 2 * around + 1)
    return left * samples / max(samples - fitted, samples / 4)


def _split(
    steps: Floats, ground: Floats, spread: Floats, floor: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return gains (band, x), logarithmic, their uncertainty (band) and boundaries (x - 1).

    From `steps` (band, x - 1), the variance of the ground's (band, band), of gains (band) and of
    the noise in steps, `floor` (band).
    In the directions of the ground's own spread, over that of the gains, both are uncorrelated.
    """
    weight = 1 / np.sqrt(spread)
    variance, direction = np.linalg.eigh(ground * weight[:, None] * weight)
    # Fewer samples than bands leave directions in which no noise was seen.
    variance = np.maximum(variance, max(1e-6, float(np.median(floor * weight**2))))
    missing = ~np.isfinite(steps).any(axis=0)
    seen = direction.T @ (np.where(np.isfinite(steps), steps, 0) * weight[:, None])
    is_ground = variance > _GROUND
    # The ground may vary more across track than along: of a median square, 0.455 is expected.
    seen_variance = np.median(seen[:, ~missing] ** 2, axis=1) / 0.455
    variance[is_ground] = np.maximum(variance, seen_variance - 2)[is_ground]
    # Where the ground varies by more than usual, it does so in its weaker directions, too.
    excess = np.ones(steps.shape[1])
    if is_ground.any():
        excess = np.maximum(1, (seen**2 / (variance + 2)[:, None])[is_ground].mean(axis=0))
    boundaries = excess > _BOUNDARY
    found = _most_likely(seen, variance, ~(boundaries | missing) / excess)
    deviation: Floats = (direction @ found) / weight[:, None]
    # The mean of the inverse's diagonal in a long chain: of 1 / (1 + (2 - 2 cos t) / variance).
    left = direction**2 @ (1 / np.sqrt(1 + 4 / variance))
    return deviation, np.sqrt(left * spread), boundaries


def _most_likely(seen: Floats, variance: Floats, weight: Floats) -> Floats:
    """Return the numbers (k, x) of variance 1 that differ as `seen` (k, x - 1) up to `variance`.

    Solves (1 + D' W D) g = D' W seen for each k, D the differences and W = weight (x - 1) over
    variance (k), by elimination in the three diagonals.
    """
    inverse = weight / variance[:, None]
    empty = np.zeros((len(seen), 1))
    before, after = np.hstack([empty, inverse]), np.hstack([inverse, empty])
    diagonal = 1 + before + after
    pull = np.hstack([empty, inverse * seen]) - np.hstack([inverse * seen, empty])
    for x in range(1, pull.shape[1]):
        factor = inverse[:, x - 1] / diagonal[:, x - 1]
        diagonal[:, x] -= factor * inverse[:, x - 1]
        pull[:, x] += factor * pull[:, x - 1]
    found = np.empty_like(pull)
    found[:, -1] = pull[:, -1] / diagonal[:, -1]
    for x in range(pull.shape[1] - 2, -1, -1):
        found[:, x] = (pull[:, x] + inverse[:, x] * found[:, x + 1]) / diagonal[:, x]
    return found
