"""Train, evaluate and apply a task on a cube: the commands where a config names a `task`."""

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict, TypeAdapter
from torch import nn

import configs
from hypersigma import checkpoint, distributed
from hypersigma.checkpoint import Checkpoint, CheckpointError
from hypersigma.cubes.benchmarks import Benchmark, read_benchmark
from hypersigma.cubes.splits import save_split
from hypersigma.dryrun import dry_run
from hypersigma.inputs import WAVELENGTH_TOLERANCE_NM
from hypersigma.pretrained import load_for_bands
from hypersigma.processes import pick_device, process
from hypersigma.runfolder import compare, finished, resumable, write_summary
from hypersigma.runlog import plain_json
from hypersigma.tasks.cubetasks import CUBE_TASKS
from hypersigma.tasks.task import Facts, Maps, Prepared, TaskConfig
from hypersigma.train import Job, fit

logger = logging.getLogger(__name__)

SPLIT_FILE, MAPS_FILE = "split.npz", "maps.npz"


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class UseConfig:
    """What `hypersigma-train evaluate` and `predict` read where the checkpoint is of a cube's task.

    A `predict` needs no labels; an `evaluate` measures on the pixels that the run held out.
    """

    checkpoint: Path
    """A run (its best checkpoint), or one checkpoint."""
    data: str | None = None
    """A benchmark's name or YAML file; null: the run's own."""
    root: Path | None = None
    """Folder of the public files; null: the run's own."""
    out: Path | None = None
    """Folder for maps and numbers; null: the one that `checkpoint` names."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def fit_task(config: TaskConfig, *, dry: bool = False) -> dict[str, Any]:
    """Train, or go on with, the run that `config` describes, and return its summary.

    The run folder gets `split.npz`, checkpoints, and from the best of these `maps.npz` of the whole
    cube, and their numbers on held-out pixels as `metrics` of the summary.

    Raises:
        TrainError: The run folder is another run's, or steps go wrong too often.
        InterruptedRunError: Ctrl-C; the run is saved.
        ValueError: The data do not fit each other or the task.
        CheckpointError: A pretrained encoder cannot be found or read.
    """
    with process(config.train) as device:
        return _fit(config, read_benchmark(config.data, config.root), device, dry=dry)


def _fit(
    config: TaskConfig, benchmark: Benchmark, device: torch.device, *, dry: bool
) -> dict[str, Any]:
    torch.manual_seed(config.train.seed)
    prepared = CUBE_TASKS[config.task].prepare(config, benchmark)
    identity = {
        "task": config.task,
        "config": TypeAdapter(TaskConfig).dump_python(config, mode="json"),
        "data": data_of(benchmark),
        "spectral": {},
        "facts": prepared.facts.to_json(),
    }
    if not dry and (done := finished(config.run, identity)) is not None:
        return done
    identity["pretrained"] = load_for_bands(
        prepared.model, config.pretrained, prepared.facts.wavelength or ()
    )
    prepared.model.to(device)
    job = Job(
        prepared.model, prepared.batches, prepared.losses, prepared.samples, prepared.evaluate,
        prepared.score, identity,
    )  # fmt: skip
    if dry:
        return dry_run(job, config.train, config.run, workers=None)
    if distributed.rank() == 0 and prepared.split is not None:
        compare(config.run, identity)
        config.run.mkdir(parents=True, exist_ok=True)
        save_split(prepared.split, config.run / SPLIT_FILE)
    progress = fit(job, config.train, config.run)
    if distributed.rank():
        return {}
    if progress.step < config.train.steps:
        return resumable(config.run, progress, config.train.steps)
    # Anew from the checkpoint: an engine may have shared the model out.
    model = CUBE_TASKS[config.task].build(config, prepared.facts)
    model.load_state_dict(checkpoint.find(config.run).weights())
    extra = {
        "metrics": _written(prepared, model.to(device), config.run),
        "pretrained": identity["pretrained"],
    }
    return write_summary(config.run, identity, progress, extra)


def evaluate_task(config: UseConfig) -> dict[str, Any]:
    """Measure a checkpoint on the pixels that its run held out; write and return the numbers.

    Raises:
        CheckpointError: There is no whole checkpoint of a task on cubes.
        ValueError: The data are not those of the run, or do not fit the model.
    """
    found, trained = open_run(config.checkpoint)
    benchmark = _benchmark(config, trained)
    prepared = CUBE_TASKS[trained.task].prepare(trained, benchmark)
    check_facts(found, prepared.facts, where=benchmark.cube.name)
    if config.data is None and found.state["data"] != data_of(benchmark):
        raise ValueError(
            f"{found.folder}: expected the data of the run, {found.state['data']}, got "
            f"{data_of(benchmark)}; name other data as `data`"
        )
    prepared.model.load_state_dict(found.weights())
    model = prepared.model.to(pick_device(config.device))
    out = _out(config, trained)
    result = _about(found, trained, benchmark) | {"metrics": _written(prepared, model, out)}
    (out / "metrics.json").write_text(plain_json(result), encoding="utf-8")
    plain: dict[str, Any] = json.loads(plain_json(result))
    return plain


def predict_task(config: UseConfig) -> dict[str, Any]:
    """Write what a checkpoint says of a cube into `maps.npz`, and return what there is in it.

    Raises:
        CheckpointError: There is no whole checkpoint of a task on cubes.
        ValueError: The cube has other bands than the model.
    """
    found, trained = open_run(config.checkpoint)
    benchmark = _benchmark(config, trained)
    task = CUBE_TASKS[trained.task]
    facts = Facts.from_json(found.state["facts"])
    check_facts(found, Facts.of(benchmark.cube, facts.classes), where=benchmark.cube.name)
    model = task.build(trained, facts)
    model.load_state_dict(found.weights())
    maps = task.maps(trained, model.to(pick_device(config.device)).eval(), benchmark)
    out = _out(config, trained)
    path = write_maps(out / MAPS_FILE, maps)
    shapes = {name: "x".join(map(str, one.shape)) for name, one in maps.items()}
    return _about(found, trained, benchmark) | {"maps": str(path), **shapes}


def open_run(path: Path) -> tuple[Checkpoint, TaskConfig]:
    """Open a checkpoint of a task on cubes, and the config that it was trained with.

    Raises:
        CheckpointError: There is none, or it is of something else.
    """
    found = checkpoint.find(path)
    if found.state["task"] not in CUBE_TASKS:
        raise CheckpointError(
            f"{found.folder}: expected a checkpoint of {sorted(CUBE_TASKS)}, got one of "
            f"{found.state['task']!r}"
        )
    return found, configs.check(TaskConfig, found.state["config"], where=str(found.folder))


def check_facts(found: Checkpoint, here: Facts, *, where: str) -> None:
    """Refuse data of other bands, units or classes than a model was trained on.

    What is not known of either does not count.

    Raises:
        ValueError: The number of bands, a wavelength, the units or the classes differ.
    """
    known = Facts.from_json(found.state["facts"])
    if known.bands != here.bands:
        others = f", or these and the {len(known.left_out)} that were left out"
        raise ValueError(
            f"{where}: expected the {known.bands} bands of {found.folder}"
            f"{others if known.left_out else ''}, got {here.bands}; use a scene of the same bands"
        )
    if known.wavelength and here.wavelength:
        away = np.abs(np.subtract(known.wavelength, here.wavelength))
        if away.max() > WAVELENGTH_TOLERANCE_NM:
            band = int(away.argmax())
            raise ValueError(
                f"{where}: expected band {band + 1} at {known.wavelength[band]:.1f} nm, as "
                f"{found.folder}, got {here.wavelength[band]:.1f} nm; use a scene of the same bands"
            )
    for what, one, other in (
        ("values in", known.units, here.units), ("classes", known.classes, here.classes),
    ):  # fmt: skip
        if one and other and one != other:
            raise ValueError(
                f"{where}: expected {what} {one!r}, as {found.folder}, got {other!r}; use data of "
                "the same kind, or train a model on these"
            )


def data_of(benchmark: Benchmark) -> dict[str, Any]:
    """Return what says which data a run saw."""
    plain: dict[str, Any] = json.loads(plain_json(benchmark.origin))
    return {"benchmark": benchmark.name} | plain


def write_maps(path: Path, maps: Maps) -> Path:
    """Write maps as `.npz`; numbers with a fraction as float32."""
    temporary = path.with_name(f".{path.name}")
    np.savez_compressed(
        temporary,
        **{
            name: one.astype(np.float32) if one.dtype.kind == "f" else one
            for name, one in maps.items()
        },
        allow_pickle=False,
    )
    temporary.replace(path)
    return path


def _written(prepared: Prepared[Any], model: nn.Module, out: Path) -> dict[str, float]:
    """Write the maps of a model; return their numbers on held-out pixels."""
    maps = prepared.maps(model.eval())
    write_maps(out / MAPS_FILE, maps)
    return prepared.metrics(maps)


def _benchmark(config: UseConfig, trained: TaskConfig) -> Benchmark:
    return read_benchmark(config.data or trained.data, config.root or trained.root)


def _out(config: UseConfig, trained: TaskConfig) -> Path:
    """Return the folder to write to, which is there.

    Raises:
        ValueError: It would be the run's own, whose maps are of other data.
    """
    if config.out is None and config.data not in (None, trained.data):
        raise ValueError(
            f"expected out: for maps of {config.data}, as those in {config.checkpoint} are of "
            f"{trained.data}"
        )
    out = config.out or config.checkpoint
    out.mkdir(parents=True, exist_ok=True)
    return out


def _about(found: Checkpoint, trained: TaskConfig, benchmark: Benchmark) -> dict[str, Any]:
    return {
        "checkpoint": str(found.folder),
        "step": found.state["step"],
        "task": trained.task,
        "mode": trained.mode,
        "size": trained.size,
        "data": benchmark.name,
    }
