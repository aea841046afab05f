"""The one training loop; pretraining and fine-tuning differ in the `Job` that they hand to it."""

import dataclasses
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from hypersigma import checkpoint
from hypersigma.optim import OptimConfig, adamw, learning_rate, set_learning_rate
from hypersigma.runfolder import Progress, TrainError, claim
from hypersigma.runlog import RunLog
from storage.ahead import ahead

logger = logging.getLogger(__name__)


class InterruptedRunError(TrainError):
    """A run that was asked to stop; it has saved a checkpoint first."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainConfig:
    """How long to train, on what, and what to keep."""

    steps: PositiveInt
    """Optimiser steps of the whole run."""
    batch_size: PositiveInt
    """Samples on the device at a time."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are added up before a step."""
    seed: int = Field(default=0, ge=0)
    """What weights, order, masks and augmentation are drawn from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU if there is one."""
    log_every: PositiveInt = 20
    """Steps between two plain log lines."""
    eval_every: PositiveInt = 100
    """Steps between two looks at held-out tiles; there is always one at the end."""
    checkpoint_every: PositiveInt = 500
    """Steps between two checkpoints; there is always one at the end."""
    keep: PositiveInt = 2
    """How many of the newest checkpoints stay."""
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    recompute: bool = False
    """Activation checkpointing: keep only the inputs of blocks and run these again in the backward
    pass. Less memory, about a third more time, the same numbers."""


@dataclass(frozen=True)
class Job[T]:
    """What one kind of training gives the loop."""

    model: nn.Module
    """On its device."""
    batches: Callable[[dict[str, Any] | None], Iterator[tuple[T, dict[str, Any]]]]
    """From a stream state (None: from the start) to endless batches, each with the state after."""
    losses: Callable[[T, torch.Generator], dict[str, Tensor]]
    """Scalars of one batch; `loss` is minimised, the others are logged."""
    evaluate: Callable[[], dict[str, float]]
    """Numbers on held-out data; must not draw from torch's global generators."""
    score: str | None
    """Which of these numbers says what checkpoint is best (largest); None: the newest is."""
    identity: dict[str, Any]
    """What `state.json` says beside the training state: task, config, data, spectral, ..."""


def fit[T](job: Job[T], config: TrainConfig, run: Path) -> Progress:
    """Train until `config.steps`, from the run's newest whole checkpoint if it has one.

    Raises:
        TrainError: The folder holds another run, or a loss is not finite.
        InterruptedRunError: Ctrl-C came; the finished steps are in a checkpoint.
    """
    claim(run, job.identity)
    device = next(job.model.parameters()).device
    optimizer = adamw(job.model, config.optim)
    at = restore(job.model, optimizer, run)
    samples = config.batch_size * config.accumulate
    with (
        RunLog(run, start=at.step, steps=config.steps, every=config.log_every) as log,
        ahead(job.batches(at.stream), depth=2) as batches,
        interrupt_flag() as interrupted,
    ):
        while at.step < config.steps:
            began, waited, losses, stream = time.perf_counter(), 0.0, dict[str, float](), at.stream
            lr = learning_rate(
                at.step, steps=config.steps, samples_per_step=samples, config=config.optim
            )
            set_learning_rate(optimizer, lr)
            job.model.train()
            for part in range(config.accumulate):
                asked = time.perf_counter()
                batch, stream = next(batches)
                waited += time.perf_counter() - asked
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    found = job.losses(batch, generator(config.seed, at.step, part))
                (found["loss"] / config.accumulate).backward()
                for name, value in found.items():
                    losses[name] = losses.get(name, 0.0) + value.item() / config.accumulate
            norm = nn.utils.clip_grad_norm_(job.model.parameters(), config.optim.clip).item()
            _require_finite(at.step + 1, losses["loss"], norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - began
            record = losses | {
                "lr": lr, "grad_norm": norm,
                "samples_per_s": samples / seconds, "data_wait": waited,
            }  # fmt: skip
            at = dataclasses.replace(
                at, step=at.step + 1, stream=stream, seconds=at.seconds + seconds
            )
            stop = interrupted.is_set()
            if at.step % config.eval_every == 0 or at.step == config.steps:
                at, record = _evaluate(job, at, record)
            log.write(at.step, record)
            improved = at.best is not None and at.best["step"] == at.step
            due = at.step % config.checkpoint_every == 0 or at.step == config.steps
            if due or improved or stop:
                _save(job, optimizer, at, run, keep=config.keep)
            if stop and at.step < config.steps:
                raise InterruptedRunError(
                    f"stopped after step {at.step} of {config.steps}, saved in {run}; "
                    "the same command goes on from there"
                )
    return at


def pick_device(name: str) -> torch.device:
    """Return the device that a config names.

    Raises:
        TrainError: A GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("device cuda: no GPU found; give device=cpu or device=auto")
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")


def generator(*seeds: int) -> torch.Generator:
    """Return a CPU generator that is a function of the seeds alone."""
    word = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> 1))


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, run: Path) -> Progress:
    """Load the run's newest whole checkpoint into model, optimiser and torch's generators."""
    found = checkpoint.newest(run)
    if found is None:
        return Progress()
    device = next(model.parameters()).device
    model.load_state_dict(found.weights())
    optimizer.load_state_dict(found.optimizer_state())
    checkpoint.unpack_rng(found.state["rng"], device)
    logger.info("goes on from %s", found.folder)
    return Progress(
        **{field.name: found.state[field.name] for field in dataclasses.fields(Progress)}
    )


@contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a flag, so that a step can be finished; the second one kills."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def note(number: int, frame: FrameType | None) -> None:
        logger.warning("interrupted: finishing this step and saving; once more to stop at once")
        flag.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)


def _evaluate[T](
    job: Job[T], at: Progress, record: dict[str, float]
) -> tuple[Progress, dict[str, float]]:
    job.model.eval()
    with torch.inference_mode():
        found = job.evaluate()
    if job.score in found:
        score = found[job.score]
        if at.best is None or score > at.best["score"]:
            at = dataclasses.replace(at, best={"step": at.step, "score": score})
    return at, record | found


def _save[T](
    job: Job[T], optimizer: torch.optim.Optimizer, at: Progress, run: Path, *, keep: int
) -> None:
    device = next(job.model.parameters()).device
    state = {**dataclasses.asdict(at), "rng": checkpoint.pack_rng(device), **job.identity}
    checkpoint.save(run, job.model, optimizer, state)
    checkpoint.prune(run, keep=keep, spare=at.best["step"] if at.best else None)


def _require_finite(step: int, loss: float, norm: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainError(
            f"step {step}: expected a finite loss and gradient, got {loss} and {norm}; "
            "the last checkpoint is from before it; try a lower train.optim.blr"
        )
