"""What a run will need and how long it will take, from three steps that are thrown away."""

import dataclasses
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypersigma import checkpoint, distributed
from hypersigma.diagnosis import Pace, diagnosis
from hypersigma.engines import Engine, engine
from hypersigma.feed import DEPTH, Feed
from hypersigma.processes import generator, seed_globally
from hypersigma.runfolder import Progress, compare
from hypersigma.runlog import duration
from hypersigma.speed import Speed
from hypersigma.train import Job, autocast
from hypersigma.trainconfig import TrainConfig

STEPS = 3
"""That are measured, behind one that is not."""
PARTS = 2
"""Batches of a process in such a step, at most; a real one may add up more."""
FLOAT32 = 4
MOMENTS = 2
"""AdamW's running means, of each weight."""


@dataclass(frozen=True)
class Times:
    """Seconds of what a step is made of."""

    batch: float
    """Forward and backward pass of a batch."""
    update: float
    waited: float
    """For a batch while the model works on the one before."""
    loaded: float
    """For a batch when nothing else is done."""

    def wait(self) -> float:
        """Return how long each batch will be waited for, when those that were ahead are used up."""
        return max(self.waited, self.loaded - self.batch, 0.0)


def dry_run[T](job: Job[T], config: TrainConfig, run: Path, *, workers: int | None) -> Any:
    """Measure a job without a trace of it, and return what it needs and what is in its way.

    Of several processes the first one returns it, the others nothing.

    Args:
        job: As it would be trained; its weights are of no use afterwards.
        config: Of the training.
        run: The run folder, which is only looked at.
        workers: Processes that read; None: the kind of job has none.

    Raises:
        TrainError: The folder holds another run.
    """
    compare(run, job.identity)
    world = distributed.world()
    parts = config.parts(world)
    few = dataclasses.replace(config, accumulate=world * min(parts, PARTS))
    done = _steps_done(run)
    memory = memory_by_component(job.model, config, world)
    size = checkpoint_bytes(job.model) + memory.get("running mean", 0)
    device = next(job.model.parameters()).device
    bf16 = config.bf16(device.type)
    speed = Speed(job.model, batches=config.accumulate, processes=world, bf16=bf16)
    with _peak(device) as peak:
        trained = engine(job.model, few)
        with Feed(job.batches, None, lambda waits: None) as feed:
            times, memory["activations"] = _measured(job, trained, few, feed, speed, workers or 0)
    looks = config.steps // config.eval_every - done // config.eval_every
    evaluation = _evaluation_seconds(job, config)
    if distributed.rank():
        return {}
    step = parts * (times.batch + times.wait()) + times.update
    samples = config.batch_size * config.accumulate
    share = parts * times.wait() / step
    found: dict[str, Any] = {
        "steps": {"done": done, "all": config.steps, "samples": samples, "processes": world},
        "memory_bytes": memory | {"sum": sum(memory.values()), "peak": peak.get("bytes"),
                                  "there": memory_there(device)},
        "disk_bytes": disk(run, size, config, best=job.score is not None),
        "time": {
            "step_s": step, "samples_per_s": samples / step,
            "data_wait": share, "evaluation_s": evaluation,
            "left_s": (config.steps - done) * step + looks * evaluation,
            **speed.of(step),
        },
    }  # fmt: skip
    words = diagnosis(Pace(samples / step, share), workers)
    return found | {"diagnosis": words, "problems": problems(found)}


def memory_by_component(model: nn.Module, config: TrainConfig, world: int) -> dict[str, int]:
    """Return the bytes of weights, gradients and moments on one device of `world`.

    DeepSpeed shares out moments (`zero` 1), gradients too (2), weights too (3). It updates float32
    copies of the weights, shared out as moments are; in bf16 the model has the weights in bf16.
    """
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    fixed = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    fixed += sum(b.nbytes for b in model.buffers())
    zero = config.zero if config.engine == "deepspeed" else 0
    share = {level: world if zero >= level else 1 for level in (1, 2, 3)}
    bf16 = config.bf16(next(model.parameters()).device.type)
    width = FLOAT32 // 2 if zero and bf16 else FLOAT32
    offloaded = 0 if zero and config.offload else 1
    masters = trainable * FLOAT32 // share[1] * offloaded if zero else 0
    return {
        "weights": fixed + trainable * width // share[3] + masters,
        "gradients": trainable * width // share[2],
        "moments": MOMENTS * trainable * FLOAT32 // share[1] * offloaded,
        **({"running mean": trainable * FLOAT32} if config.ema else {}),
    }


def checkpoint_bytes(model: nn.Module) -> int:
    """Return how many bytes a checkpoint has: weights, and moments of those that are trained."""
    state = sum(value.nbytes for value in model.state_dict().values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return state + MOMENTS * trained * FLOAT32


def disk(run: Path, size: int, config: TrainConfig, *, best: bool) -> dict[str, int]:
    """Return what checkpoints of `size` bytes need beyond those that are there, and what is free.

    There are at most those that stay, the best one, and the one that is being written.
    """
    count = config.keep + 1 + int(best)
    if config.keep_every:
        count += config.steps // config.keep_every
    there = sum(path.stat().st_size for path in run.glob("checkpoints/**/*") if path.is_file())
    folder = next(path for path in (run, *run.absolute().parents) if path.is_dir())
    return {
        "checkpoint": size, "checkpoints": count, "needed": max(0, count * size - there),
        "free": shutil.disk_usage(folder).free,
    }  # fmt: skip


def memory_there(device: torch.device) -> int:
    """Return the bytes of memory that a device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def problems(found: dict[str, Any]) -> list[str]:
    """Return in words what is in the way of a run."""
    memory, space = found["memory_bytes"], found["disk_bytes"]
    told = []
    if memory["sum"] > memory["there"]:
        told.append(
            f"a process needs about {_size(memory['sum'])} of memory, and the device has "
            f"{_size(memory['there'])}: try a smaller train.batch_size, train.recompute=true, or "
            "train.engine=deepspeed"
        )
    if space["needed"] > space["free"]:
        told.append(
            f"{space['checkpoints']} checkpoints need {_size(space['needed'])} more, and "
            f"{_size(space['free'])} are free where the run is: make room, or keep fewer "
            "(train.keep, train.keep_every)"
        )
    return told


def table(found: dict[str, Any]) -> str:
    """Return what `dry_run` found as text, a line each."""
    steps, times = found["steps"], found["time"]
    shown = {
        "steps": f"{steps['all']}, {steps['done']} of them done",
        "samples a step": f"{steps['samples']}, by {steps['processes']} process(es)",
        **{f"memory: {key}": _size(value) for key, value in found["memory_bytes"].items()
           if value is not None},
        **{f"disk: {key}": str(value) if key == "checkpoints" else _size(value)
           for key, value in found["disk_bytes"].items()},
        "a step": f"{times['step_s']:.3g} s",
        "samples / s": f"{times['samples_per_s']:.4g}",
        "TFLOP / s": f"{times['tflops']:.3g}"
        + (f", {times['peak_share']:.0%} of the peak" if "peak_share" in times else ""),
        "a look at held-out data": f"{times['evaluation_s']:.3g} s",
        "time to finish": duration(times["left_s"]),
        "data": found["diagnosis"],
    }  # fmt: skip
    width = max(map(len, shown))
    lines = [f"{name:<{width}}  {value}" for name, value in shown.items()]
    return "\n".join([*lines, *(f"problem: {one}" for one in found["problems"])])


def _measured[T](
    job: Job[T], trained: Engine, config: TrainConfig, feed: Feed[T], speed: Speed, workers: int
) -> tuple[Times, int]:
    """Make steps, the first of which is not counted; return their times, and saved bytes."""
    kept, batches, updates, waits = 0, list[float](), list[float](), list[float]()
    parts = config.parts(distributed.world())
    job.model.train()
    for step in range(1 + STEPS):
        for part in range(parts):
            waited = feed.waited
            batch, _ = feed.take()
            waits.append(feed.waited - waited)
            began = time.perf_counter()
            seed_globally(config.seed, step, part)
            with trained.part(last=part == parts - 1), speed.counting():
                with autocast(job.model, config), saved_bytes(job.model, off=step > 0) as saved:
                    losses = job.losses(trained.forward, batch, generator(config.seed, step, part))
                trained.backward(losses["loss"] / parts)
            losses["loss"].item()
            batches.append(time.perf_counter() - began)
            kept = max(kept, sum(saved.values()))
        began = time.perf_counter()
        trained.step(0.0)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        updates.append(time.perf_counter() - began)
    for _ in range(DEPTH + 2 * workers):  # those that came ahead
        feed.take()
    waited = feed.waited
    for _ in range(STEPS):
        feed.take()
    loaded = (feed.waited - waited) / STEPS
    return Times(_mean(batches[parts:]), _mean(updates[1:]), _mean(waits[parts:]), loaded), kept


@contextmanager
def saved_bytes(model: nn.Module, *, off: bool = False) -> Iterator[dict[int, int]]:
    """Yield a dict that gets the bytes of what is kept for the backward pass, by its address.

    Weights are left out; what shares memory counts once.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    if off:
        yield found
        return
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield found


@contextmanager
def _peak(device: torch.device) -> Iterator[dict[str, int]]:
    """Yield a dict that gets, of a GPU, the most bytes that torch had at a time."""
    found: dict[str, int] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found["bytes"] = torch.cuda.max_memory_allocated(device)


def _evaluation_seconds[T](job: Job[T], config: TrainConfig) -> float:
    began = time.perf_counter()
    job.model.eval()
    with torch.no_grad(), autocast(job.model, config):
        job.evaluate()
        if job.look:
            job.look()
    return time.perf_counter() - began


def _steps_done(run: Path) -> int:
    found = checkpoint.newest(run) if distributed.rank() == 0 else None
    return distributed.shared(Progress().step if found is None else int(found.state["step"]))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
