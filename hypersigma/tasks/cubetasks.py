"""The tasks on cubes by name."""

from hypersigma.tasks import (
    anomaly_detection,
    change_detection,
    denoising,
    patch_classification,
    segmentation,
    super_resolution,
    target_detection,
    unmixing,
)
from hypersigma.tasks.task import Task

CUBE_TASKS: dict[str, Task] = {
    "patch_classification": patch_classification.TASK,
    "segmentation": segmentation.TASK,
    "anomaly_detection": anomaly_detection.TASK,
    "target_detection": target_detection.TASK,
    "change_detection": change_detection.TASK,
    "unmixing": unmixing.TASK,
    "denoising": denoising.TASK,
    "super_resolution": super_resolution.TASK,
}
