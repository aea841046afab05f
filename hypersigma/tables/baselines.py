"""Classical methods of every task, given exactly what the task's model is given."""

import dataclasses
from collections.abc import Callable

from hypersigma.classical.methods import METHODS
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.splits import Split
from hypersigma.tasks import denoising, super_resolution, target_detection
from hypersigma.tasks.task import Maps, TaskConfig

RESTORATIONS: dict[str, dict[str, Callable[[TaskConfig, Benchmark], Maps]]] = {
    "denoising": {"low_rank": denoising.baseline},
    "super_resolution": {"bicubic": super_resolution.baseline},
}
SEEDLESS = frozenset({"rx", "local_rx"})
"""What comes out does not depend on the seed."""


def baselines(task: str) -> tuple[str, ...]:
    """Return the names of a task's classical methods."""
    return (*METHODS.get(task, {}), *RESTORATIONS.get(task, {}))


def baseline_maps(name: str, config: TaskConfig, benchmark: Benchmark, split: Split | None) -> Maps:
    """Return what a classical method says of a scene.

    Args:
        name: Of the method, one of `baselines`.
        config: Of the task: where a target comes from, what noise is added, the seed.
        benchmark: The scene.
        split: Of its labels, as the task's model has it.
    """
    if name in RESTORATIONS.get(config.task, {}):
        return RESTORATIONS[config.task][name](config, benchmark)
    if config.task == "target_detection":
        options = target_detection.options_of(config)
        target_C, _ = target_detection.target_of(benchmark, options.target, config.split.seed)
        benchmark = dataclasses.replace(benchmark, target_C=target_C.numpy())
    return METHODS[config.task][name](benchmark, split, config.train.seed)
