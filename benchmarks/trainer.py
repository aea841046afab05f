"""What the training loop costs beside a bare one, and how long a checkpoint stops it.

The same model and batch; the loops take turns in one process, and a step lasts from one forward
pass to the next, so logging, guard, watchdog and all else is in it. A checkpoint costs what steps
last longer behind it than between two others, added up until the next one: the copy of the weights
and moments, and what the thread that writes them takes of the machine.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hypersigma.backbones.sizes import SizeName
from hypersigma.data import Inputs
from hypersigma.mae import Mae, spatial_mae
from hypersigma.optim import adamw, learning_rate, set_learning_rate
from hypersigma.pretrain import mae_losses
from hypersigma.processes import generator
from hypersigma.train import Job, fit
from hypersigma.trainconfig import TrainConfig

WORK = Path("build/bench/trainer")
BANDS, SIDE = 100, 64
ROUNDS, STEPS, TILES = 9, 16, 16
FIRST = 3
"""Steps of a turn that are not counted."""
MOST_PERCENT, MOST_STEPS = 2.0, 1.0


def main() -> int:
    """Measure and print."""
    torch.set_num_threads(1)
    shutil.rmtree(WORK, ignore_errors=True)
    model, batch = _model("tiny"), _batch(TILES)
    config = TrainConfig(steps=STEPS, batch_size=TILES, guard={"spike_sigmas": 20, "window": 5})
    _bare(model, batch, config)
    pairs = []
    for number in range(ROUNDS):
        turns = [
            lambda: _bare(model, batch, config),
            lambda n=number: _ours(model, batch, config, WORK / f"run{n}"),
        ]
        # Who goes first changes, so that a machine that gets slower favours neither.
        times = [turns[which]() for which in ((0, 1), (1, 0))[number % 2]]
        pairs.append(times if number % 2 == 0 else times[::-1])
    # (round, loop, wall or CPU)
    medians = np.array([[np.median(turn, axis=0) for turn in pair] for pair in pairs])
    bare, ours = np.median(medians, axis=0)
    cost = np.median(medians[:, 1] - medians[:, 0], axis=0)
    share = np.median(medians[:, 1] / medians[:, 0] - 1, axis=0)
    for number, name in enumerate(("wall clock", "CPU time")):
        print(
            f"a step of size tiny, {TILES} tiles, one core, by {name}: bare "
            f"{bare[number] * 1e3:.1f} ms, ours {ours[number] * 1e3:.1f} ms; loop, log and guard "
            f"cost {cost[number] * 1e3:.2f} ms, {share[number]:.2%} of {MOST_PERCENT:g}"
        )
    _checkpoints()
    return 0


def _checkpoints() -> None:
    model, batch = _model("base"), _batch(8)
    every, rounds = 8, 4
    config = TrainConfig(
        steps=every * (rounds + 1), batch_size=8, checkpoint_every=every, keep=1, eval_every=1000
    )
    times = _ours(model, batch, config, WORK / "checkpoints", first=every - 1)[:, 0]
    # Each row: the step behind a checkpoint, and those that follow.
    rows = times[: len(times) // every * every].reshape(-1, every)
    usual = np.median(rows[:, every // 2 :])
    size = sum(p.stat().st_size for p in (WORK / "checkpoints").rglob("*.safetensors"))
    print(f"a checkpoint of size base, {size / 1e9:.1f} GB; a step of 8 tiles {usual:.2f} s")
    print(f"the step behind it lasts {np.median(rows[:, 0] / usual - 1):.2f} steps longer, all "
          f"until the next {np.median((rows / usual - 1).sum(axis=1)):.2f}, wanted < "
          f"{MOST_STEPS:g}")  # fmt: skip


def _model(size: SizeName) -> Mae:
    torch.manual_seed(0)
    return spatial_mae(size, bands=BANDS)


def _batch(count: int) -> Inputs:
    rng = torch.Generator().manual_seed(0)
    return Inputs(
        x=torch.randn(count, BANDS, SIDE, SIDE, generator=rng),
        valid=torch.ones(count, SIDE, SIDE, dtype=torch.bool),
        wavelength=torch.linspace(400, 2400, BANDS).expand(count, -1),
        mean=torch.zeros(count, BANDS),
    )


def _bare(model: Mae, batch: Inputs, config: TrainConfig) -> np.ndarray:
    """Return what steps last in a loop with nothing around it (step, wall or CPU) [s]."""
    optimizer, marks = adamw(model, config.optim), []
    model.train()
    for step in range(config.steps):
        marks.append((time.perf_counter(), time.process_time()))
        lr = learning_rate(
            step, steps=config.steps, samples_per_step=len(batch.x), config=config.optim
        )
        set_learning_rate(optimizer, lr)
        loss = mae_losses(model, model, batch, generator(0, step, 0))["loss"]
        loss.backward()
        loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return np.diff(marks, axis=0)[FIRST:]


def _ours(
    model: Mae, batch: Inputs, config: TrainConfig, run: Path, *, first: int = FIRST
) -> np.ndarray:
    """Return what steps last in the trainer's loop (step, wall or CPU) [s]."""
    marks = []

    def losses(forward: Any, inputs: Inputs, rng: torch.Generator) -> dict[str, torch.Tensor]:
        marks.append((time.perf_counter(), time.process_time()))
        return mae_losses(forward, model, inputs, rng)

    def batches(state: Any) -> Iterator[tuple[Inputs, dict[str, Any]]]:
        while True:
            yield batch, {}

    job = Job(
        model=model, batches=batches, losses=losses, samples=lambda _: [], evaluate=dict,
        score=None,
        identity={"task": "bench", "config": {}, "data": {}, "spectral": {}},
    )  # fmt: skip
    fit(job, config, run)
    return np.diff(marks, axis=0)[first:]
