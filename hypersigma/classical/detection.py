"""Anomalies and targets by the statistics of the background.

Shape letters: C bands, H W pixels, N pixels in a row. Scores are larger where a target is likelier.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dposv

type Numbers = NDArray[np.floating]

RIDGE = 1e-6
"""Of the mean variance, added to each band's: bands may depend on each other."""
LOCAL_RIDGE = 1e-2
"""The same for windows, which have hardly more pixels than there are bands."""


def rx(cube_CHW: Numbers) -> NDArray[np.float64]:
    """Return how unlike the image's mean each pixel is (H, W): squared Mahalanobis distance.

    Source: Reed & Yu 1990, doi:10.1109/29.60107.
    """
    x_CN = _pixels(cube_CHW)
    centred_CN = x_CN - x_CN.mean(1, keepdims=True)
    factor = cho_factor(_ridged(centred_CN @ centred_CN.T / x_CN.shape[1], RIDGE))
    score_N = (centred_CN * cho_solve(factor, centred_CN)).sum(0)
    return np.asarray(score_N.reshape(cube_CHW.shape[1:]))


def local_rx(cube_CHW: Numbers, *, inner: int = 5, outer: int = 21) -> NDArray[np.float64]:
    """Return how unlike its surroundings each pixel is (H, W).

    Args:
        cube_CHW: Image, mirrored at its borders.
        inner: Side of the window that is left out around a pixel, odd; larger than a target.
        outer: Side of the window that the background is taken from, odd.

    Raises:
        ValueError: Windows that are not odd, or not one in the other, or larger than the image,
            or values that are not finite.

    Source: Kwon, Der & Nasrabadi 2003, doi:10.1117/1.1620977 (dual window).
    """
    centred_CN = _pixels(cube_CHW)
    # Sums of products keep their digits where the mean is taken off first.
    centred_CN = centred_CN - centred_CN.mean(1, keepdims=True)
    _, height, width = cube_CHW.shape
    if not (inner % 2 and outer % 2 and 1 <= inner < outer):
        raise ValueError(f"expected odd windows, inner < outer, got {inner=} {outer=}")
    reach = outer // 2
    if reach >= min(height, width):
        raise ValueError(f"expected an outer window of less than the image's two sides, "
                         f"{height} x {width}, got {outer}")  # fmt: skip
    image_WHC = centred_CN.reshape(cube_CHW.shape).transpose(2, 1, 0)
    padded_WHC = np.ascontiguousarray(np.pad(image_WHC, [*[(reach, reach)] * 2, (0, 0)], "reflect"))
    # Of rings that stand still: what differs from them is unlike, but not beyond all numbers.
    least = RIDGE * float(centred_CN.var()) * (outer**2 - inner**2)
    score = np.empty((height, width))
    for row in range(height):
        score[row] = _ring_distances(padded_WHC[:, row : row + outer], inner, least)
    return score


def _ring_distances(strip_WSC: Numbers, inner: int, least: float) -> list[float]:
    """Return how unlike its ring each pixel is that has a whole window in a strip of rows.

    At least `least` is added to each band's variance times pixels.

    The window's products of bands are kept while it moves, a column added and one taken off; of
    the symmetric matrices only the upper half is made.
    """
    _, outer, bands = strip_WSC.shape
    border, middle, count = (outer - inner) // 2, outer // 2, outer**2 - inner**2
    power_CC = dsyrk(1.0, strip_WSC[:outer].reshape(-1, bands).T)
    total_C = strip_WSC[:outer].sum((0, 1))
    diagonal, found = np.arange(bands), []
    for left in range(len(strip_WSC) - outer + 1):
        if left:
            old_SC, new_SC = strip_WSC[left - 1], strip_WSC[left + outer - 1]
            power_CC = dsyrk(1.0, new_SC.T, beta=1.0, c=power_CC, overwrite_c=True)
            power_CC = dsyrk(-1.0, old_SC.T, beta=1.0, c=power_CC, overwrite_c=True)
            total_C = total_C + new_SC.sum(0) - old_SC.sum(0)
        hole_NC = strip_WSC[left + border : left + border + inner, border : border + inner].reshape(
            -1, bands
        )
        mean_C = (total_C - hole_NC.sum(0)) / count
        less_CN = np.vstack((hole_NC, np.sqrt(count) * mean_C)).T
        spread_CC = dsyrk(-1.0, less_CN, beta=1.0, c=power_CC)
        spread_CC[diagonal, diagonal] += max(LOCAL_RIDGE * np.trace(spread_CC) / bands, least)
        away_C = strip_WSC[left + middle, middle] - mean_C
        _, solved_C, fault = dposv(spread_CC, away_C, overwrite_a=True)
        # A fault: the whole image stands still.
        found.append(0.0 if fault else count * float(away_C @ solved_C))
    return found


def sam(cube_CHW: Numbers, target_C: Numbers) -> NDArray[np.float64]:
    """Return the cosine of the angle between each pixel and a target spectrum (H, W).

    Source: Kruse et al. 1993, doi:10.1016/0034-4257(93)90013-N.
    """
    x_CN, target = _pixels(cube_CHW), _spectrum(cube_CHW, target_C)
    lengths = np.linalg.norm(x_CN, axis=0) * np.linalg.norm(target)
    score_N = np.divide(target @ x_CN, lengths, out=np.zeros(x_CN.shape[1]), where=lengths > 0)
    return score_N.reshape(cube_CHW.shape[1:])


def cem(cube_CHW: Numbers, target_C: Numbers) -> NDArray[np.float64]:
    """Return what a filter lets through (H, W) that gives the target 1 and the image least power.

    Source: Farrand & Harsanyi 1997, doi:10.1016/S0034-4257(96)00080-6.
    """
    x_CN, target = _pixels(cube_CHW), _spectrum(cube_CHW, target_C)
    factor = cho_factor(_ridged(x_CN @ x_CN.T / x_CN.shape[1], RIDGE))
    solved = cho_solve(factor, target)
    return np.asarray((solved @ x_CN / (target @ solved)).reshape(cube_CHW.shape[1:]))


def smf(cube_CHW: Numbers, target_C: Numbers) -> NDArray[np.float64]:
    """Return the spectral matched filter (H, W): 0 at the mean, 1 at the target.

    Source: Manolakis & Shaw 2002, doi:10.1109/79.974724.
    """
    centred_CN, away, inverse = _whitened(cube_CHW, target_C)
    solved = inverse(away)
    return np.asarray((solved @ centred_CN / (away @ solved)).reshape(cube_CHW.shape[1:]))


def ace(cube_CHW: Numbers, target_C: Numbers) -> NDArray[np.float64]:
    """Return the adaptive cosine estimator (H, W): the cosine to the target, background whitened.

    With its sign, since what lies opposite the target is none; the published form is its square.

    Source: Kraut, Scharf & McWhorter 2001, doi:10.1109/78.890324.
    """
    centred_CN, away, inverse = _whitened(cube_CHW, target_C)
    solved = inverse(away)
    power_N = (centred_CN * inverse(centred_CN)).sum(0)
    lengths = np.sqrt(power_N * (away @ solved))
    score_N = np.divide(solved @ centred_CN, lengths, out=np.zeros(len(power_N)), where=lengths > 0)
    return score_N.reshape(cube_CHW.shape[1:])


def _whitened(
    cube_CHW: Numbers, target_C: Numbers
) -> tuple[Numbers, Numbers, Callable[[Numbers], Numbers]]:
    """Return pixels and target less the mean, and what multiplies by the inverse covariance."""
    x_CN, target = _pixels(cube_CHW), _spectrum(cube_CHW, target_C)
    mean = x_CN.mean(1)
    centred_CN, away = x_CN - mean[:, None], target - mean
    factor = cho_factor(_ridged(centred_CN @ centred_CN.T / x_CN.shape[1], RIDGE))
    return centred_CN, away, lambda spectra: np.asarray(cho_solve(factor, spectra))


def _ridged(covariance: Numbers, ridge: float) -> Numbers:
    return covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))


def _pixels(cube_CHW: Numbers) -> NDArray[np.float64]:
    if cube_CHW.ndim != 3:
        raise ValueError(f"expected an image (band, y, x), got {cube_CHW.shape}")
    if not np.isfinite(cube_CHW).all():
        bad = np.flatnonzero(~np.isfinite(cube_CHW).all(axis=(1, 2)))
        raise ValueError(
            f"expected finite values, got others in bands {bad.tolist()[:5]}; leave these bands "
            "out or fill them"
        )
    return np.asarray(cube_CHW, np.float64).reshape(len(cube_CHW), -1)


def _spectrum(cube_CHW: Numbers, target_C: Numbers) -> NDArray[np.float64]:
    if target_C.shape != cube_CHW.shape[:1]:
        raise ValueError(
            f"expected a target spectrum of the image's {len(cube_CHW)} bands, got "
            f"{target_C.shape}; resample it to the image's wavelengths"
        )
    return np.asarray(target_C, np.float64)
