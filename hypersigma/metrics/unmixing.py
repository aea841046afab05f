"""Endmembers and abundances beside the true ones.

Shape letters: K endmembers, C bands, N pixels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

type Numbers = NDArray[np.floating]


def spectral_angles(a_KC: Numbers, b_JC: Numbers) -> NDArray[np.float64]:
    """Return the angle [rad] between each spectrum of one set and each of another, (K, J).

    Source: Kruse et al. 1993, doi:10.1016/0034-4257(93)90013-N. By the half-angle of the unit
    vectors, which keeps its digits where arccos of the cosine loses them.

    Raises:
        ValueError: Numbers of bands differ, or a spectrum is 0.
    """
    if a_KC.shape[1] != b_JC.shape[1]:
        raise ValueError(
            f"spectra must have one number of bands, got {a_KC.shape[1]} and {b_JC.shape[1]}"
        )
    a, b = (np.asarray(spectra, np.float64) for spectra in (a_KC, b_JC))
    lengths = [np.linalg.norm(spectra, axis=1, keepdims=True) for spectra in (a, b)]
    if any((length == 0).any() for length in lengths):
        raise ValueError("expected spectra that have a direction, got one of zeros")
    a, b = a / lengths[0], b / lengths[1]
    difference = np.linalg.norm(a[:, None] - b[None], axis=2)
    total = np.linalg.norm(a[:, None] + b[None], axis=2)
    return np.asarray(2 * np.arctan2(difference, total))


def matched(found_KC: Numbers, true_KC: Numbers) -> NDArray[np.int64]:
    """Return for each true endmember the found one, so that the sum of angles is the smallest.

    Source: Kuhn 1955, doi:10.1002/nav.3800020109 (Hungarian method).

    Raises:
        ValueError: There are not equally many.
    """
    if len(found_KC) != len(true_KC):
        raise ValueError(
            f"expected as many endmembers as are true, {len(true_KC)}, got {len(found_KC)}"
        )
    _, columns = linear_sum_assignment(spectral_angles(true_KC, found_KC))
    return np.asarray(columns, np.int64)


def unmixing_report(
    found_KC: Numbers, true_KC: Numbers, found_KN: Numbers, true_KN: Numbers
) -> dict[str, Any]:
    """Return how far endmembers and abundances are from the true ones.

    Args:
        found_KC: Endmembers, in any order and scale.
        true_KC: The true ones.
        found_KN: Abundances, in the order of `found_KC`.
        true_KN: The true ones.

    Returns:
        `sad` mean spectral angle [rad], `mse` and `rmse` (root) mean square error of all
        abundances; by endmember, in the true order: `sad_each`, `rmse_each`; `order`, of the found
        ones.

    Raises:
        ValueError: Shapes do not fit.
    """
    order = matched(found_KC, true_KC)
    if found_KN.shape != true_KN.shape or len(true_KN) != len(true_KC):
        raise ValueError(
            f"abundances must be ({len(true_KC)}, pixels) as the true ones, "
            f"got {found_KN.shape} and {true_KN.shape}"
        )
    angles = spectral_angles(true_KC, found_KC)[np.arange(len(order)), order]
    squares = np.square(found_KN[order].astype(np.float64) - true_KN)
    return {
        "sad": float(angles.mean()),
        "mse": float(squares.mean()),
        "rmse": float(np.sqrt(squares.mean())),
        "sad_each": angles.tolist(),
        "rmse_each": np.sqrt(squares.mean(1)).tolist(),
        "order": order.tolist(),
    }
