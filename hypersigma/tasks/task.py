"""What a task on cubes is: its config, what it makes of data, and how the commands meet it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict, PositiveInt
from torch import Tensor, nn

from hypersigma.backbones.sizes import SizeName
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.cube import Cube
from hypersigma.cubes.splits import Split, SplitConfig
from hypersigma.pretrained import Pretrained
from hypersigma.trainconfig import TrainConfig

type Maps = dict[str, np.ndarray]
"""What a model says of a whole cube: name -> (H, W) or (K, H, W)."""

type TaskName = Literal[
    "patch_classification", "segmentation", "target_detection", "anomaly_detection",
    "change_detection", "unmixing", "denoising", "super_resolution",
]  # fmt: skip


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TaskConfig:
    """What `hypersigma-train finetune` reads where the config names a `task`."""

    run: Path
    """Folder of this run: checkpoints, logs, split, maps, summary.json."""
    task: TaskName
    data: str
    """A benchmark's name, as in configs/data, or a YAML file of that form."""
    mode: Literal["spatial", "spectral", "both"]
    """Which encoders look at the cube."""
    size: SizeName
    train: TrainConfig
    root: Path = Path("data")
    """Folder of the public files."""
    patch_size: PositiveInt = 3
    """Side of the spatial encoder's patches [pixel]."""
    cell_size: PositiveInt | None = None
    """Side of what the spectral encoder looks at at a time [pixel], whole patches; null: a patch.
    Its cost is that of a cell, so large ones are cheap."""
    ssa: bool | tuple[int, ...] = False
    """Sampling attention in most blocks, as published, or in those numbered, from 0; false: full
    attention in all."""
    pretrained: Pretrained = dataclasses.field(default_factory=Pretrained)
    split: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    """Which labelled pixels are trained on."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What only this task has; its module says what there is."""


@dataclass(frozen=True)
class Facts:
    """What a model has to know of its data, kept in every checkpoint."""

    bands: int
    wavelength: tuple[float, ...] | None
    """Band centres [nm]; None: not known."""
    classes: tuple[str, ...] = ()
    """Names of classes or endmembers; none where a task has no such thing."""
    left_out: tuple[int, ...] = ()
    """Bands of the data as stored, from 1, that are none of these."""
    units: str | None = None
    """Of the values, where the data say so."""

    @staticmethod
    def of(cube: Cube, classes: tuple[str, ...] = ()) -> "Facts":
        """Return what is known of a cube."""
        centres = None if cube.wavelength is None else tuple(cube.wavelength.tolist())
        left_out = tuple(cube.source.get("bands_left_out", ()))
        return Facts(cube.bands, centres, classes, left_out, cube.units)

    def reduced(self, components: int | None) -> "Facts":
        """Return what encoders know of principal components of the bands; None: of the bands."""
        if components is None:
            return self
        return dataclasses.replace(self, bands=components, wavelength=None)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for `state.json`."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Facts":
        """Read what `to_json` wrote into a checkpoint."""
        wavelength = plain["wavelength"]
        return Facts(
            bands=plain["bands"],
            wavelength=None if wavelength is None else tuple(wavelength),
            classes=tuple(plain["classes"]),
            # Checkpoints of earlier versions have none of these.
            left_out=tuple(plain.get("left_out", ())),
            units=plain.get("units"),
        )


@dataclass(frozen=True)
class Prepared[T]:
    """What a task makes of a config and a benchmark; the first fields are those of `train.Job`."""

    model: nn.Module
    """On the CPU, normaliser fitted; weights are as constructed."""
    batches: Callable[[Mapping[str, Any] | None], Iterator[tuple[T, dict[str, Any]]]]
    losses: Callable[[Callable[..., Any], T, torch.Generator], dict[str, Tensor]]
    samples: Callable[[T], list[str]]
    evaluate: Callable[[], dict[str, float]]
    """`val_*` numbers on the validation pixels, by `model` as it then is; empty without any."""
    score: str | None
    """Which of these chooses the checkpoint (largest); None: the newest is taken."""
    maps: Callable[[nn.Module], Maps]
    """What a model says of the whole cube."""
    metrics: Callable[[Mapping[str, np.ndarray]], dict[str, float]]
    """Of such maps, a model's or a classical method's, on held-out pixels only."""
    facts: Facts
    split: Split | None = None
    """What was drawn, or which pixels are measured on; None: all."""


@dataclass(frozen=True)
class Task:
    """A task as the commands know it."""

    prepare: Callable[[TaskConfig, Benchmark], Prepared[Any]]
    """(config, benchmark): everything that training and evaluation need."""
    build: Callable[[TaskConfig, Facts], nn.Module]
    """The same model as `prepare` makes, for a checkpoint's weights."""
    maps: Callable[[TaskConfig, Any, Benchmark], Maps]
    """(config, model, benchmark, of which only the cubes and the target are looked at)."""


def positions_nm(facts: Facts) -> Tensor:
    """Return the wavelengths (C) that the encoders are told [nm]; even ones if they are not known.

    The spectral encoder needs some order of bands: without wavelengths it is their number, spread
    over 400-2500 nm, which no pretrained encoder knows.
    """
    if facts.wavelength is not None:
        return torch.tensor(facts.wavelength, dtype=torch.float32)
    return torch.linspace(400.0, 2500.0, facts.bands)
