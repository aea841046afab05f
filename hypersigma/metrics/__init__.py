"""How well a task is done, as pure functions on arrays.

Formulas of the published code that differ are in `hypersigma.metrics.legacy`, to compare with the
numbers that it printed.
"""

from hypersigma.metrics.classification import classification_report, confusion_matrix
from hypersigma.metrics.detection import detection_report
from hypersigma.metrics.restoration import restoration_report
from hypersigma.metrics.unmixing import unmixing_report

__all__ = [
    "classification_report", "confusion_matrix", "detection_report", "restoration_report",
    "unmixing_report",
]  # fmt: skip
