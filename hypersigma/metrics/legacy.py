"""Formulas of the published code where they differ, for comparison with its numbers only.

Source: the HyperSIGMA repository, commit 07e9ea2.
"""

import numpy as np
from numpy.typing import NDArray

from hypersigma.metrics.detection import unit_scores

type Numbers = NDArray[np.floating]

DIGITS = 4


def detection_report(score: Numbers, target: NDArray[np.bool_]) -> dict[str, float]:
    """Return areas by trapezoids between the thresholds, rounded before they are combined."""
    unit = unit_scores(score, target)
    taus = np.unique(unit)[::-1]
    rates = []
    for chosen in (unit[~target], unit[target]):
        ordered = np.sort(chosen)
        rates.append(1 - np.searchsorted(ordered, taus, side="left") / len(ordered))
    f, d = rates
    d_f = round(float(np.trapezoid(d, f)), DIGITS)
    d_tau, f_tau = (round(float(np.trapezoid(r[::-1], taus[::-1])), DIGITS) for r in (d, f))
    return {
        "auc_d_f": d_f, "auc_d_tau": d_tau, "auc_f_tau": f_tau,
        "auc_oa": d_f + d_tau - f_tau,
        "auc_snpr": d_tau / f_tau if f_tau else float("inf"),
    }  # fmt: skip


def change_report(confusion: NDArray[np.int64]) -> dict[str, float]:
    """Return precision and recall of class 1, rounded, and F1 of the rounded ones."""
    hits = confusion[1, 1]
    precision = round(float(hits / confusion[:, 1].sum()), DIGITS)
    recall = round(float(hits / confusion[1].sum()), DIGITS)
    return {
        "precision": precision, "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
    }  # fmt: skip


def ssim(found_HW: Numbers, true_HW: Numbers) -> float:
    """Return the similarity of a band's statistics as a whole, one window over all, of peak 1."""
    mean_a, mean_b = found_HW.mean(), true_HW.mean()
    both = ((found_HW - mean_a) * (true_HW - mean_b)).mean()
    c1, c2 = 0.01**2, 0.03**2
    return float(
        ((2 * mean_a * mean_b + c1) * (2 * both + c2))
        / ((mean_a**2 + mean_b**2 + c1) * (found_HW.var() + true_HW.var() + c2))
    )


def matched(found_KC: Numbers, true_KC: Numbers) -> list[tuple[int, int]]:
    """Return pairs (true, found): the nearest two first, then the nearest of the others, ..."""
    a, b = (spectra / spectra.max(1, keepdims=True) for spectra in (true_KC, found_KC))
    cosine = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    angle = np.arccos(np.clip(cosine, -1, 1))
    pairs = []
    for _ in range(len(a)):
        pair = np.unravel_index(np.argmin(angle), angle.shape)
        pairs.append((int(pair[0]), int(pair[1])))
        angle[pair[0]], angle[:, pair[1]] = np.inf, np.inf
    return pairs
