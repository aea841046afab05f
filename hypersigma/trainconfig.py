"""How long to train, on what, how to share the work out, and what to keep."""

import dataclasses
from typing import Literal

import pydantic.dataclasses
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

from hypersigma.guard import GuardConfig
from hypersigma.optim import OptimConfig
from hypersigma.runfolder import TrainError
from hypersigma.trackers import TrackerName


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainConfig:
    """How long to train, on what, and what to keep."""

    steps: PositiveInt
    """Optimiser steps of the whole run."""
    batch_size: PositiveInt
    """Samples on a device at a time."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are added up before a step, over all processes: so a step has
    batch_size x accumulate samples on any number of them."""
    seed: int = Field(default=0, ge=0)
    """What weights, order, masks and augmentation are drawn from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU if there is one."""
    engine: Literal["auto", "single", "ddp", "deepspeed"] = "auto"
    """`auto`: `ddp` where several processes were started, else `single`."""
    zero: Literal[0, 1, 2, 3] = 1
    """DeepSpeed: what the processes share out; 0 nothing, 1 the optimiser's moments, 2 gradients
    too, 3 weights too."""
    offload: bool = False
    """DeepSpeed: keep the optimiser's share in the machine's memory; with `zero` from 1."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What blocks compute in; `auto`: bf16 on a GPU. Weights that are updated stay in float32."""
    deterministic: bool = False
    """Only algorithms that give the same bits each time, on a GPU too; slower there."""
    log_every: PositiveInt = 20
    """Steps between two plain log lines."""
    eval_every: PositiveInt = 100
    """Steps between two looks at held-out tiles; there is always one at the end."""
    checkpoint_every: PositiveInt = 500
    """Steps between two checkpoints; there is always one at the end."""
    keep: PositiveInt = 2
    """How many of the newest checkpoints stay."""
    keep_every: NonNegativeInt = 0
    """Checkpoints of steps that are multiples of this stay for ever; 0: none."""
    mirror: str | None = None
    """Where copies of the checkpoints go, a folder or `s3://bucket/prefix` of this run alone; a run
    whose folder is lost goes on from there."""
    track: TrackerName = "none"
    """Whom each step's numbers are told, beside the run folder; must be installed."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """How much of the running mean of the weights stays at each step, 0.999 or so; that mean is
    then evaluated and handed on. Less at first: (1 + t) / (10 + t) at step t. Null: none."""
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    stall_seconds: PositiveFloat | None = 1800
    """Without a finished step for so long, a process writes where it hangs into `stalls/`, and
    ends; null: never."""
    recompute: bool = False
    """Activation checkpointing: keep only the inputs of blocks and run these again in the backward
    pass. Less memory, about a third more time, the same numbers."""

    def bf16(self, device: str) -> bool:
        """Return whether blocks compute in bf16 on a kind of device."""
        return self.precision == "bf16" or (self.precision == "auto" and device == "cuda")

    def parts(self, world: int) -> int:
        """Return how many batches of a step are each process's.

        Raises:
            TrainError: They cannot be shared out evenly.
        """
        if self.accumulate % world:
            raise TrainError(
                f"train.accumulate must be a multiple of the {world} processes, which share it "
                f"out, got {self.accumulate}"
            )
        return self.accumulate // world
