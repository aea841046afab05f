"""The one training loop; pretraining and fine-tuning differ in the `Job` that they hand to it."""

import dataclasses
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hypersigma import distributed, guard
from hypersigma.engines import Engine, engine
from hypersigma.feed import Feed
from hypersigma.guard import BadStepError, Trouble
from hypersigma.mirror import Mirror
from hypersigma.optim import learning_rate
from hypersigma.processes import generator, pick_device, seed_globally
from hypersigma.resume import go_back, restore
from hypersigma.runfolder import Progress, TrainError, claim
from hypersigma.runlog import RunLog
from hypersigma.saving import FULL, Saver
from hypersigma.signals import Requests, stop_requests
from hypersigma.speed import Speed
from hypersigma.trackers import tracker
from hypersigma.trainconfig import TrainConfig
from hypersigma.watchdog import Watchdog

__all__ = ["InterruptedRunError", "Job", "TrainConfig", "fit", "generator", "pick_device"]

logger = logging.getLogger(__name__)

type Images = Mapping[str, np.ndarray]
"""Pictures (y, x, 3) [0-1] by their names."""
type Log = Callable[[int, Mapping[str, float], Images], None]
"""Takes what is known of a finished step, counted from 1."""


class InterruptedRunError(TrainError):
    """A run that was asked to stop; it has saved a checkpoint first."""


@dataclass(frozen=True)
class Job[T]:
    """What one kind of training gives the loop."""

    model: nn.Module
    """On its device."""
    batches: Callable[[Mapping[str, Any] | None], Iterator[tuple[T, dict[str, Any]]]]
    """From a stream state (None: from the start) to this process's endless batches, each with the
    state after it and the batches that the other processes take meanwhile."""
    losses: Callable[[Callable[..., Any], T, torch.Generator], dict[str, Tensor]]
    """Scalars of one batch, by the model as the engine wraps it; `loss` is minimised, the others
    are logged."""
    samples: Callable[[T], list[str]]
    """Ids of a batch's samples."""
    evaluate: Callable[[], dict[str, float]]
    """Numbers on held-out data; must not draw from torch's global generators."""
    score: str | None
    """Which of these numbers says what checkpoint is best (largest); None: the newest is."""
    identity: dict[str, Any]
    """What `state.json` says beside the training state: task, config, data, spectral, ..."""
    look: Callable[[], Images] | None = None
    """Pictures of held-out data, for TensorBoard; the same restriction."""


@dataclass(frozen=True)
class Tools[T]:
    """What the loop works with."""

    feed: Feed[T]
    log: Log
    speed: Speed
    saver: Saver
    asked: Requests
    watchdog: Watchdog


def fit[T](job: Job[T], config: TrainConfig, run: Path) -> Progress:
    """Train until `config.steps`, from the run's newest whole checkpoint if it has one.

    A step gone wrong takes the run back to its last checkpoint; its batches are then left out. What
    comes back has fewer steps if a scheduler asked to stop: the run is saved, and can go on.

    Raises:
        TrainError: The folder holds another run, steps go wrong too often, or a checkpoint cannot
            be written.
        InterruptedRunError: Ctrl-C came; the finished steps are in a checkpoint.
    """
    config.parts(distributed.world())
    mirror = None
    if distributed.rank() == 0:
        claim(run, job.identity)
        if config.mirror is not None:
            mirror = Mirror(run, config.mirror, job.identity)
            mirror.fetch()
    trained = engine(job.model, config)
    speed = Speed(
        job.model, batches=config.accumulate, processes=distributed.world(),
        bf16=config.bf16(next(job.model.parameters()).device.type),
    )  # fmt: skip
    with (
        stop_requests() as asked,
        mirror or nullcontext(),
        Saver(run, keep=config.keep, keep_every=config.keep_every, mirror=mirror) as saver,
        Watchdog(run, config.stall_seconds) as watchdog,
    ):
        at = restore(trained, run)
        if not at.step:
            _save(job, trained, at, saver)  # to go back to, and to see that there is room
        while True:
            try:
                with (
                    _step_log(run, at, config) as log,
                    Feed(job.batches, at.stream, watchdog.waits_for_data) as feed,
                ):
                    tools = Tools(feed, log, speed, saver, asked, watchdog)
                    at = _steps(job, trained, config, at, tools)
                break
            except BadStepError as bad:
                go_back(bad.trouble, run, config.guard.rewinds, saver)
                at = restore(trained, run)
        saver.finish(at.step)
    if asked.interrupted and at.step < config.steps:
        raise InterruptedRunError(
            f"stopped after step {at.step} of {config.steps}, saved in {run}; "
            "the same command goes on from there"
        )
    return at


def _steps[T](
    job: Job[T], trained: Engine, config: TrainConfig, at: Progress, tools: Tools[T]
) -> Progress:
    """Make the steps that are left, or those until somebody asks to stop.

    Batches have numbers that do not depend on the processes: process r of w takes batches r, r + w,
    ... of a step. What a step does is a function of the seed, its number, its data and the weights.

    Raises:
        BadStepError: A step went wrong; the weights are not to be used.
    """
    parts, samples = config.parts(distributed.world()), config.batch_size * config.accumulate
    while at.step < config.steps:
        at = _leave_out(at, tools.feed, parts)
        began, waited = time.perf_counter(), tools.feed.waited
        lr = learning_rate(
            at.step, steps=config.steps, samples_per_step=samples, config=config.optim
        )
        losses, ids, stream = _passes(job, trained, config, at, tools)
        norm = trained.step(lr)
        record = _together(losses, tools.asked)
        if reason := guard.wrong(record["loss"], norm, at.recent, config.guard):
            raise BadStepError(Trouble(at.step + 1, at.slot, reason, record["loss"], norm, ids))
        seconds = time.perf_counter() - began
        record |= {
            "lr": lr, "grad_norm": norm, "samples_per_s": samples / seconds,
            "data_wait": tools.feed.waited - waited, **tools.speed.of(seconds),
        }  # fmt: skip
        at = dataclasses.replace(
            at, step=at.step + 1, slot=at.slot + 1, stream=stream, seconds=at.seconds + seconds,
            recent=guard.remembered(record["loss"], at.recent, config.guard),
        )  # fmt: skip
        images: Images = {}
        if at.step % config.eval_every == 0 or at.step == config.steps:
            at, numbers, images = _evaluate(job, trained, config, at)
            record |= numbers
        tools.log(at.step, record, images)
        tools.saver.check()
        improved = at.best is not None and at.best["step"] == at.step
        due = at.step % config.checkpoint_every == 0 or at.step == config.steps
        if due or improved or tools.asked.any:
            _save(job, trained, at, tools.saver)
        tools.watchdog.stepped(at.step)
        if tools.asked.any:
            break
    return at


def _passes[T](
    job: Job[T], trained: Engine, config: TrainConfig, at: Progress, tools: Tools[T]
) -> tuple[dict[str, float], list[str], dict[str, Any] | None]:
    """Add up the gradients of this process's batches of a step.

    Returns:
        The losses' means, the samples' ids, and the stream's state behind them.
    """
    rank, world = distributed.rank(), distributed.world()
    parts = config.parts(world)
    losses, ids, stream = defaultdict[str, float](float), list[str](), at.stream
    job.model.train()
    for part in range(parts):
        batch, stream = tools.feed.take()
        seeds = (config.seed, at.step, part * world + rank)
        seed_globally(*seeds)
        with trained.part(last=part == parts - 1), tools.speed.counting():
            with autocast(job.model, config):
                found = job.losses(trained.forward, batch, generator(*seeds))
            trained.backward(found["loss"] / parts)
        for name, value in found.items():
            losses[name] += value.item() / parts
        ids += job.samples(batch)
    return losses, ids, stream


def autocast(model: nn.Module, config: TrainConfig) -> AbstractContextManager[Any]:
    """Return what a model's passes run in: bf16 where the config, or a GPU, asks for it."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=config.bf16(device))


def _save[T](job: Job[T], trained: Engine, at: Progress, saver: Saver) -> None:
    """Begin to write a checkpoint, in the first process; all put it together."""
    state = {**dataclasses.asdict(at), **job.identity}
    saver.save(trained.state(keep=distributed.rank() == 0), state)


def _leave_out[T](at: Progress, feed: Feed[T], parts: int) -> Progress:
    """Go past the batches of steps that went wrong before."""
    while at.slot in at.skipped:
        for _ in range(parts):
            _, stream = feed.take()
        at = dataclasses.replace(at, slot=at.slot + 1, stream=stream)
    return at


def _together(losses: Mapping[str, float], asked: Requests) -> dict[str, float]:
    """Return the losses' means over all processes; what one is asked for, all then are."""
    flags = {name: float(name in asked.noted) for name in ("interrupted", "preempted")}
    found = distributed.mean({**losses, **flags})
    asked.interrupted = found.pop("interrupted") > 0
    asked.preempted = found.pop("preempted") > 0
    return found


def _evaluate[T](
    job: Job[T], trained: Engine, config: TrainConfig, at: Progress
) -> tuple[Progress, dict[str, float], Images]:
    """Look at held-out data; all processes do, since a model may be shared out among them."""
    job.model.eval()
    with torch.no_grad(), autocast(job.model, config), trained.averaged():
        found = distributed.shared(job.evaluate())
        images = job.look() if job.look else {}
    if job.score in found:
        score = found[job.score]
        if at.best is None or score > at.best["score"]:
            at = dataclasses.replace(at, best={"step": at.step, "score": score})
    return at, found, images


@contextmanager
def _step_log(run: Path, at: Progress, config: TrainConfig) -> Iterator[Log]:
    """Yield what takes the numbers of each step: the run's log, in the first process."""
    if distributed.rank():
        yield lambda step, record, images: None
        return
    with (
        tracker(config.track, run) as track,
        RunLog(run, start=at.step, steps=config.steps, every=config.log_every) as log,
    ):

        def write(step: int, record: Mapping[str, float], images: Images) -> None:
            track(step, log.write(step, record))
            for name, pixels in images.items():
                log.image(step, name, pixels)

        yield _if_there_is_room(write)


def _if_there_is_room(write: Log) -> Log:
    """Return the same, but that a full disk is no error: what has no room waits for some."""
    full = False

    def write_on(step: int, record: Mapping[str, float], images: Images) -> None:
        nonlocal full
        try:
            write(step, record, images)
        except OSError as error:
            if error.errno not in FULL:
                raise
            if not full:
                logger.warning("no room for the log of step %d: %s; training goes on", step, error)
            full = True
        else:
            full = False

    return write_on
