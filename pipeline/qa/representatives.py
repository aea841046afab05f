"""A few pixels that stand for a scene's sampled ones."""

import numpy as np
from numpy.typing import NDArray

from pipeline.qa.quality import Bools, Floats, Ints

_ROUNDS = 30
"""k-means moves little after a dozen."""


def representatives(
    spectra: NDArray[np.float32], trusted: Bools, *, number: int = 6, seed: int = 0
) -> tuple[Ints, Floats]:
    """Return which of the spectra stand for groups of like ones, and the groups' shares [1].

    k-means of the trusted bands, each over its own spread, so that a band's unit does not count;
    of each group the spectrum nearest to the mean. The brightest first. The same seed gives the
    same pixels.

    Args:
        spectra: (sample, band), NaN where not measured.
        trusted: Bands to compare (band).
        number: How many, at most; fewer where fewer spectra differ.
        seed: Of the first means' choice.

    Source: first means chosen after Arthur & Vassilvitskii 2007 (k-means++), Proc. SODA, 1027-1035.
    """
    finite = np.isfinite(spectra)
    trusted = trusted & (finite.mean(axis=0) > 0.9) if len(spectra) else trusted
    whole = np.flatnonzero(finite[:, trusted].all(axis=1))
    if not len(whole) or not trusted.any():
        return np.zeros(0, np.int64), np.zeros(0)
    points = spectra[np.ix_(whole, np.flatnonzero(trusted))].astype("float64")
    low, middle, high = np.percentile(points, (5, 50, 95), axis=0)
    points = (points - middle) / np.where(high > low, high - low, 1)
    means = _first_means(points, number, np.random.default_rng(seed))
    for _ in range(_ROUNDS):
        group = _distances(points, means).argmin(axis=1)
        means = np.stack([
            points[group == i].mean(axis=0) if (group == i).any() else means[i]
            for i in range(len(means))
        ])  # fmt: skip
    distances = _distances(points, means)
    share = np.bincount(distances.argmin(axis=1), minlength=len(means)) / len(points)
    nearest = distances.argmin(axis=0)
    order = [i for i in np.argsort(-points[nearest].mean(axis=1), kind="stable") if share[i] > 0]
    return whole[nearest[order]], share[order]


def _first_means(points: Floats, number: int, rng: np.random.Generator) -> Floats:
    """Return up to `number` of the points that lie far apart."""
    chosen = [int(rng.integers(len(points)))]
    for _ in range(number - 1):
        nearest = _distances(points, points[chosen]).min(axis=1)
        if nearest.sum() < 1e-9:
            break
        chosen.append(int(rng.choice(len(points), p=nearest / nearest.sum())))
    return points[chosen]


def _distances(points: Floats, means: Floats) -> Floats:
    """Return squared distances (point, mean)."""
    return np.stack([((points - mean) ** 2).sum(axis=1) for mean in means], axis=1)
