"""Agreement of predicted and true classes.

A confusion matrix has the truth in rows and the prediction in columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

type Counts = NDArray[np.int64]


def confusion_matrix(pred: NDArray[Any], target: NDArray[Any], num_classes: int) -> Counts:
    """Count how often each true class was given each class, (num_classes, num_classes).

    Matrices of parts of the data add up to that of all.

    Args:
        pred: Predicted classes 0..num_classes-1, any shape.
        target: True classes 0..num_classes-1, the same shape.
        num_classes: Number of classes.

    Raises:
        ValueError: The shapes differ, or a class is out of range.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred and target must have one shape, got {pred.shape}, {target.shape}")
    for name, classes in (("pred", pred), ("target", target)):
        if classes.size and (classes.min() < 0 or classes.max() >= num_classes):
            raise ValueError(
                f"{name} must be in 0..{num_classes - 1}, got {classes.min()}..{classes.max()}"
            )
    pairs = target.ravel().astype(np.int64) * num_classes + pred.ravel().astype(np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def classification_report(confusion: Counts) -> dict[str, Any]:
    """Summarise a confusion matrix in plain numbers.

    Returns:
        `oa` share of right answers; `aa` mean recall over the classes that the truth has; `kappa`
        agreement beyond chance; `per_class` a dict a class: `class`, `support` (true samples),
        `recall`, `precision`, `f1`, `iou`; `miou` mean of the latter over the classes that the
        truth has; `confusion` as lists. All [1], nan where not defined: a class absent from the
        truth, the precision of a class never predicted, kappa of a single class.

    Source: Cohen 1960, doi:10.1177/001316446002000104 (kappa).
    """
    total = confusion.sum()
    hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        recall = hits / support
        precision = np.where(support > 0, hits / predicted, np.nan)
        f1 = np.where(support > 0, 2 * hits / (support + predicted), np.nan)
        iou = np.where(support > 0, hits / (support + predicted - hits), np.nan)
        oa = hits.sum() / total
        chance = (support / total) @ (predicted / total)
        kappa = (oa - chance) / (1 - chance)
    per_class = [
        {
            "class": k, "support": int(support[k]), "recall": float(recall[k]),
            "precision": float(precision[k]), "f1": float(f1[k]), "iou": float(iou[k]),
        }
        for k in range(len(confusion))
    ]  # fmt: skip
    return {
        "oa": float(oa),
        "aa": float(recall[support > 0].mean()) if total else float("nan"),
        "kappa": float(kappa),
        "miou": float(iou[support > 0].mean()) if total else float("nan"),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }
