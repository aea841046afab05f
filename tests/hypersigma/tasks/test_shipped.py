"""Shipped configs of tasks on cubes fit their schemas, and name scenes that there are."""

import pytest

import configs
from hypersigma.cubes.benchmarks import BenchmarkConfig
from hypersigma.tasks.cubetasks import CUBE_TASKS
from hypersigma.tasks.task import Facts, TaskConfig

SHIPPED = sorted((configs.CONFIG_DIR / "task").glob("*_tiny*.yaml"))


def load(path):
    config = configs.load(TaskConfig, path)
    configs.load(BenchmarkConfig, f"data/{config.data}")
    return config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_tiny_ones_make_a_model(path):
    config = load(path)
    model = CUBE_TASKS[config.task].build(config, Facts(20, None, ("a", "b")))
    assert (model.spatial is not None) == (config.mode != "spectral")
    assert (model.spectral is not None) == (config.mode != "spatial")


@pytest.mark.parametrize(
    "path", sorted((configs.CONFIG_DIR / "task").glob("*_base.yaml")), ids=lambda path: path.stem
)
def test_base_ones_fit(path):
    assert load(path).size == "base"
    assert path.with_stem(path.stem.replace("base", "tiny")) in SHIPPED
