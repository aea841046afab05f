"""What feeds a training run, measured without the training: rate, waiting, and mixing."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydantic.dataclasses
from pydantic import ConfigDict, PositiveFloat, PositiveInt

from hypersigma.diagnosis import WAITING
from hypersigma.loader import TileLoader
from hypersigma.pretrain import PretrainConfig, training_stream
from storage.stream import open_shards

PERCENTILES = (50, 90, 99, 100)


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BenchDataConfig(PretrainConfig):
    """What `hypersigma-train bench data` reads: a pretraining config, and how to measure."""

    batches: PositiveInt = 100
    """Batches that are measured, behind the first."""
    step_ms: PositiveFloat | None = None
    """What the device needs for a batch [ms]; None: only how long it may need is told."""


@dataclass(frozen=True)
class Pace:
    """How batches came, one after the other."""

    waited: np.ndarray
    """Until each came (batch) [s]."""
    seconds: float
    """From the first request to the end of the last step."""
    samples: int
    bytes: int


def bench_data(config: BenchDataConfig) -> dict[str, Any]:
    """Read batches as fast as they come, and once more at the pace of `step_ms`; return figures.

    Raises:
        SchemaError: The shards are missing or damaged, or have no training tile.
    """
    stream = training_stream(config, open_shards(config.shards))
    rows = stream.draws(0).row
    with TileLoader(stream, workers=config.workers, augment=config.augment) as loader:
        began = time.perf_counter()
        next(loader)
        first = time.perf_counter() - began
        free = pace(loader, config.batches, 0.0)
        # What waits since is taken by as many batches as are measured.
        slow = config.step_ms and pace(loader, config.batches, config.step_ms / 1000)
    found = {
        "tiles": len(rows),
        "batch_size": config.train.batch_size,
        "bands": config.bands,
        "workers": config.workers,
        "first_batch_s": first,
        "samples_per_s": free.samples / free.seconds,
        "mb_per_s": free.bytes / free.seconds / 1e6,
        "batch_ms": {f"p{q}": float(np.percentile(free.waited, q)) * 1e3 for q in PERCENTILES},
        "shuffle": shuffle_quality(np.argsort(np.argsort(rows)), config.train.batch_size),
    }
    return found | verdict(free, slow or None, config.step_ms)


def pace(loader: TileLoader, batches: int, step: float) -> Pace:
    """Take batches, with a pause of `step` seconds behind each as a device would make one."""
    waited, samples, size = np.empty(batches), 0, 0
    began = time.perf_counter()
    for number in range(batches):
        asked = time.perf_counter()
        batch = next(loader)
        waited[number] = time.perf_counter() - asked
        samples, size = samples + len(batch.stored), size + batch.stored.nbytes
        time.sleep(step)
    return Pace(waited, time.perf_counter() - began, samples, size)


def verdict(free: Pace, slow: Pace | None, step_ms: float | None) -> dict[str, Any]:
    """Return which of loader and device waits for the other, and at what step they are even."""
    even = free.seconds / len(free.waited) * 1e3
    found: dict[str, Any] = {"even_step_ms": even}
    if slow is None or step_ms is None:
        words = f"a step of less than {even:.1f} ms a batch would be loader-bound"
        return found | {"verdict": f"no step_ms: {words}"}
    share = float(slow.waited.sum() / slow.seconds)
    bound = "loader-bound" if share > WAITING else "compute-bound"
    words = f"{bound} at {step_ms:g} ms a batch: the device waits {share:.1%} of the time"
    return found | {"step_ms": step_ms, "wait_share": share, "verdict": words}


def shuffle_quality(places: np.ndarray, batch_size: int) -> dict[str, float]:
    """Return how well an order is mixed; with a uniform shuffle each figure is near 1.

    Args:
        places: Of each sample in storage, a permutation of 0, 1, ... (sample of the order).
        batch_size: Samples of the order that are seen together.

    Returns:
        `step`: mean distance in storage between samples that follow each other; `neighbours`: mean
        distance in the order between samples that are neighbours in storage; both as shares of
        (n + 1) / 3, the mean distance of two of n places. `together`: neighbours in storage that
        are in one batch, as a share of how many a uniform shuffle puts there (0 if it puts none).
    """
    count = len(places)
    if count < 2:
        return {"step": 1.0, "neighbours": 1.0, "together": 1.0}
    uniform = (count + 1) / 3
    order = np.argsort(places)
    batch = order // batch_size
    sizes = np.bincount(batch).astype(np.int64)
    expected = float((sizes * (sizes - 1)).sum()) / count
    together = float((batch[1:] == batch[:-1]).sum())
    return {
        "step": float(np.abs(np.diff(places)).mean() / uniform),
        "neighbours": float(np.abs(np.diff(order)).mean() / uniform),
        "together": together / expected if expected else 0.0,
    }
