"""The tasks on cubes by name."""

from hypersigma.tasks import (
    anomaly_detection,
    change_detection,
    segmentation,
    target_detection,
)
from hypersigma.tasks.task import Task

CUBE_TASKS: dict[str, Task] = {
    "segmentation": segmentation.TASK,
    "anomaly_detection": anomaly_detection.TASK,
    "target_detection": target_detection.TASK,
    "change_detection": change_detection.TASK,
}
