"""Change between two dates, without labels.

Shape letters: C bands, H W pixels, N pixels in a row.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import eigh

type Numbers = NDArray[np.floating]


def cva(before_CHW: Numbers, after_CHW: Numbers) -> NDArray[np.float64]:
    """Return the length of the change vector (H, W), bands standardised by their differences.

    Source: Malila 1980, change vector analysis.
    """
    before_CN, after_CN = _both(before_CHW, after_CHW)
    change = after_CN - before_CN
    spread = change.std(1, keepdims=True)
    unit = np.divide(change - change.mean(1, keepdims=True), spread, where=spread > 0,
                     out=np.zeros_like(change))  # fmt: skip
    return np.asarray(np.linalg.norm(unit, axis=0).reshape(before_CHW.shape[1:]))


def irmad(
    before_CHW: Numbers, after_CHW: Numbers, *, rounds: int = 50, ridge: float = 1e-4
) -> NDArray[np.float64]:
    """Return the iteratively reweighted multivariate alteration detection (H, W).

    A sum over canonical variates of squared differences by their variance; where nothing changed
    it is distributed as chi-squared with C degrees of freedom. Pixels count by how likely they are
    to be unchanged, until the correlations stand still.

    Args:
        before_CHW: First date.
        after_CHW: Second date, registered, in the same bands.
        rounds: At most.
        ridge: Of the mean variance, added to each band's.

    Raises:
        ValueError: Images that do not fit.

    Source: Nielsen 2007, doi:10.1109/TIP.2006.888195.
    """
    x, y = _both(before_CHW, after_CHW)
    bands, count = x.shape
    weight, known = np.ones(count), np.zeros(bands)
    score = np.zeros(count)
    for _ in range(rounds):
        share = weight / weight.sum()
        a, b = (t - (t @ share)[:, None] for t in (x, y))
        xx, yy, xy = ((s * share) @ t.T for s, t in ((a, a), (b, b), (a, b)))
        for part in (xx, yy):
            part += ridge * np.trace(part) / bands * np.eye(bands)
        squares, left = eigh(xy @ np.linalg.solve(yy, xy.T), xx)
        found = np.sqrt(squares.clip(0, 1))
        right = np.linalg.solve(yy, xy.T @ left)
        right /= np.sqrt((right * (yy @ right)).sum(0)).clip(1e-12)
        variates = left.T @ a - right.T @ b
        spread = 2 * (1 - found).clip(ridge)
        score = (variates**2 / spread[:, None]).sum(0)
        weight = stats.chi2.sf(score, bands)
        if np.abs(found - known).max() < 1e-4 or not weight.sum():
            break
        known = found
    return np.asarray(score.reshape(before_CHW.shape[1:]))


def _both(before_CHW: Numbers, after_CHW: Numbers) -> tuple[Numbers, Numbers]:
    if before_CHW.shape != after_CHW.shape or before_CHW.ndim != 3:
        raise ValueError(
            f"expected two images (band, y, x) of one shape, got {before_CHW.shape} and "
            f"{after_CHW.shape}; bring them to one grid and one set of bands"
        )
    images = [np.asarray(image, np.float64) for image in (before_CHW, after_CHW)]
    if not all(np.isfinite(image).all() for image in images):
        raise ValueError("expected finite values, got others; leave these pixels or bands out")
    return images[0].reshape(len(images[0]), -1), images[1].reshape(len(images[1]), -1)
