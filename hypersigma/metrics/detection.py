"""Scores of targets and background: areas under the curves of a 3-D ROC.

Source: Chang 2021, doi:10.1109/TGRS.2020.3021671. Scores are brought to 0..1 first; the areas over
the threshold tau are then exact: that of the detection rate over tau is the targets' mean score.
"""

import numpy as np
from numpy.typing import NDArray

type Numbers = NDArray[np.floating]


def detection_report(score: Numbers, target: NDArray[np.bool_]) -> dict[str, float]:
    """Return how well scores tell targets from background.

    Args:
        score: Larger where a target is more likely; any shape.
        target: True at targets; the same shape.

    Returns:
        `auc_d_f` detection over false alarms: the share of pairs (target, background) in which the
        target has the larger score, ties half; `auc_d_tau`, `auc_f_tau` detections and false alarms
        over the threshold; `auc_oa` = d_f + d_tau - f_tau; `auc_snpr` = d_tau / f_tau, infinite if
        no background has a score.

    Raises:
        ValueError: The shapes differ, a score is not finite, all are alike, or there are only
            targets or none.
    """
    unit = unit_scores(score, target)
    hits, alarms = unit[target], unit[~target]
    d_f, d_tau, f_tau = _larger(hits, alarms), float(hits.mean()), float(alarms.mean())
    return {
        "auc_d_f": d_f,
        "auc_d_tau": d_tau,
        "auc_f_tau": f_tau,
        "auc_oa": d_f + d_tau - f_tau,
        "auc_snpr": d_tau / f_tau if f_tau else float("inf"),
    }


def unit_scores(score: Numbers, target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return scores from 0 to 1 over the whole image; see `detection_report` for errors."""
    if score.shape != target.shape:
        raise ValueError(
            f"score and target must have one shape, got {score.shape} and {target.shape}"
        )
    if not target.any() or target.all():
        raise ValueError(
            f"expected targets and background, got {int(target.sum())} targets of {target.size} "
            "pixels; a curve needs both"
        )
    if not np.isfinite(score).all():
        bad = int((~np.isfinite(score)).sum())
        raise ValueError(f"expected finite scores, got {bad} others; leave these pixels out")
    low, high = float(score.min()), float(score.max())
    if low == high:
        raise ValueError(f"expected scores that differ, got {low} everywhere")
    return (score.astype(np.float64) - low) / (high - low)


def _larger(hits: Numbers, alarms: Numbers) -> float:
    """Return the share of pairs in which the first is larger (Mann-Whitney), ties half."""
    ordered = np.sort(alarms)
    below = np.searchsorted(ordered, hits, side="left")
    upto = np.searchsorted(ordered, hits, side="right")
    return float((below + upto).mean() / 2 / len(ordered))
