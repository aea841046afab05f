"""Anomaly detection: which pixels are unlike the others, with no label and no target known."""

import configs
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.tasks.checks import image_of, mask_of
from hypersigma.tasks.crops import Crops
from hypersigma.tasks.detecting import prepared_detector, score_maps
from hypersigma.tasks.detector import Detector, DetectorOptions
from hypersigma.tasks.task import Facts, Maps, Prepared, Task, TaskConfig


def build(config: TaskConfig, facts: Facts) -> Detector:
    """Return the model of a config, untrained: it says what RX does."""
    return Detector(facts, config, options_of(config), known=False)


def prepare(config: TaskConfig, benchmark: Benchmark) -> Prepared[Crops]:
    """Return what trains an anomaly detector on a benchmark, whose mask only measures it.

    Raises:
        ValueError: The mask is missing or empty.
    """
    mask_HW = mask_of(benchmark)
    model = build(config, Facts.of(benchmark.cube))
    return prepared_detector(
        config, options_of(config), model, benchmark, mask_HW, benchmark.cube.valid_HW
    )


def maps(config: TaskConfig, model: Detector, benchmark: Benchmark) -> Maps:
    """Return `score` (H, W) of a cube."""
    return score_maps(model, image_of(benchmark.cube), options_of(config))


def options_of(config: TaskConfig) -> DetectorOptions:
    """Return the task's own options, checked."""
    return configs.check(DetectorOptions, config.options, where="options of anomaly_detection")


TASK = Task(prepare, build, maps)
