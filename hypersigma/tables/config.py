"""What `hypersigma-train bench tasks` reads, and the cells of the tables that it asks for."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic.dataclasses
from pydantic import ConfigDict, PositiveInt, TypeAdapter

import configs
from configs import ConfigError
from hypersigma.cubes.benchmarks import how_read
from hypersigma.cubes.description import BenchmarkConfig, find_benchmark
from hypersigma.tables.baselines import SEEDLESS, baselines
from hypersigma.tasks.task import TaskConfig

Mode = Literal["spatial", "spectral", "both"]
type Overrides = tuple[str, ...]
"""`section.field=value`"""
MODES: tuple[Mode, ...] = ("spatial", "spectral", "both")

CELL_FILE, CELLS = "cell.json", "cells"


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ExperimentConfig:
    """One table: a task on a scene."""

    title: str
    config: str
    """Of the task: a YAML file, or the name of a shipped one such as `task/segmentation_tiny`."""
    set: Overrides = ()
    """Over that config."""
    methods: tuple[str, ...] | None = None
    """Classical methods; null: all that the task has."""
    modes: tuple[Mode, ...] = MODES
    models: dict[str, Overrides] = dataclasses.field(
        default_factory=lambda: dict[str, Overrides]({"": ()})
    )
    """What is behind the name of a model in the table: more overrides, such as pretrained
    weights."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TablesConfig:
    """What `hypersigma-train bench tasks` reads."""

    out: Path
    """Folder of the cells, and of results.parquet, results.md and results.html."""
    experiments: tuple[ExperimentConfig, ...]
    root: Path = Path("data")
    """Folder of the public files."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the split, the weights and the noise; each row is a mean over them."""
    processes: PositiveInt = 1
    """Cells that run at a time."""


@dataclass(frozen=True)
class Cell:
    """One number of a table: a method on a scene with a seed."""

    experiment: str
    name: str
    """Row of the table."""
    method: str | None
    """Classical; None: the model of the config."""
    seed: int
    config: dict[str, Any]
    """Of the task, as plain data; its `run` is the cell's folder."""

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return Path(self.config["run"])


def cells(config: TablesConfig) -> Iterator[Cell]:
    """Yield the cells of all tables, in their order.

    Raises:
        ConfigError: A task's config does not fit, two tables have one title, or a classical method
            is none of the task's.
    """
    titles = [one.title for one in config.experiments]
    if len(set(titles)) < len(titles):
        raise ConfigError(f"expected experiments of different titles, got {titles}")
    for experiment in config.experiments:
        task = _task(experiment, config, "both", ())
        known = baselines(task.task)
        wanted = known if experiment.methods is None else experiment.methods
        if unknown := [name for name in wanted if name not in known]:
            raise ConfigError(
                f"{experiment.title}: expected methods of {task.task}: {', '.join(known)}; got "
                f"{', '.join(unknown)}"
            )
        for name in wanted:
            for seed in config.seeds[:1] if name in SEEDLESS else config.seeds:
                yield _cell(config, experiment, task, name=name, method=name, seed=seed)
        for label, overrides in experiment.models.items():
            for mode in experiment.modes:
                model = _task(experiment, config, mode, overrides)
                row = f"HyperSIGMA {model.size} {mode}" + (f", {label}" if label else "")
                for seed in config.seeds:
                    yield _cell(config, experiment, model, name=row, method=None, seed=seed)


def _task(
    experiment: ExperimentConfig, config: TablesConfig, mode: Mode, overrides: Overrides
) -> TaskConfig:
    return configs.load(
        TaskConfig, experiment.config,
        [f"root={config.root}", *experiment.set, *overrides, f"mode={mode}", "run=cell"],
    )  # fmt: skip


def _cell(
    config: TablesConfig,
    experiment: ExperimentConfig,
    task: TaskConfig,
    *,
    name: str,
    method: str | None,
    seed: int,
) -> Cell:
    seeded = dataclasses.replace(
        task,
        train=dataclasses.replace(task.train, seed=seed),
        split=dataclasses.replace(task.split, seed=seed),
    )
    plain = TypeAdapter(TaskConfig).dump_python(seeded, mode="json")
    plain["run"] = str(config.out / CELLS / _name(seeded, method))
    return Cell(experiment.title, name, method, seed, plain)


def _name(task: TaskConfig, method: str | None) -> str:
    """Return what is one and the same for cells that compute one and the same.

    Only what differs from the defaults counts, so that a new key renames nothing.
    """
    plain = TypeAdapter(TaskConfig).dump_python(task, mode="json", exclude_defaults=True)
    said = {key: value for key, value in plain.items() if key not in ("run", "root")}
    if method is not None:
        kept = ("task", "data", "split", "options")
        said = {key: plain[key] for key in kept if key in plain}
        said |= {"method": method, "seed": task.train.seed}
    path, _ = find_benchmark(task.data)
    said["scene"] = how_read(configs.load(BenchmarkConfig, path))
    text = json.dumps(said, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
