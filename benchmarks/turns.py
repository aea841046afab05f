"""Loaders in processes of their own that take turns, each on the same core, and are checked.

A child gives float32 batches (B, WINDOW, 64, 64) of stored / 4000; the first two pixels of each
band are the numbers of the tile and of the band from 1, so that every window can be compared.
Needs NumPy and torch alone: peers have an environment of their own.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WORK = Path("build/bench/loader")
TILES, BANDS, WINDOW, BATCH = 384, 175, 100, 32
SECONDS = 1.0
"""That a turn takes at least."""
SCALE = np.float32(1 / 4000)


def truth() -> np.ndarray:
    """Return all tiles (tile, band, y, x), int16, memory-mapped."""
    return np.load(WORK / "truth.npy", mmap_mode="r", allow_pickle=False)


def serve(epoch: Callable[[int], Iterator[Any]]) -> None:
    """In a child: check or time an epoch for each line of stdin; print a line of JSON."""
    import torch

    torch.set_num_threads(1)
    epochs = map(epoch, itertools.count())
    for line in sys.stdin:
        # A pass that is checked goes first, and fills the page cache.
        found = checked(next(epochs)) if line == "check\n" else timed(epochs)
        print(json.dumps(found), flush=True)


def checked(batches: Iterator[Any]) -> list[int]:
    """Return the numbers of the tiles given; all windows must be the truth's."""
    tiles, numbers = truth(), []
    for batch in batches:
        assert tuple(batch.shape[1:]) == (WINDOW, 64, 64), batch.shape
        assert str(batch.dtype) == "torch.float32", batch.dtype
        for window in batch.numpy():
            number, start = np.rint(window[0, 0, :2] / SCALE).astype(int) - 1
            expected = tiles[number, start : start + WINDOW] * SCALE
            np.testing.assert_allclose(window, expected, rtol=1e-6)
            numbers.append(int(number))
    return numbers


def timed(epochs: Iterator[Iterator[Any]]) -> list[float]:
    """Return tiles a second, and a second of the CPU, from the first batch of each epoch on.

    Starting an epoch is not what is compared. The second figure holds on a busy machine, too.
    """
    count, wall, cpu = 0, 0.0, 0.0
    while wall < SECONDS:
        batches = next(epochs)
        next(batches)
        began, used = time.perf_counter(), time.process_time()
        count += sum(len(batch) for batch in batches)
        wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - used
    return [count / wall, count / cpu]


class Child:
    """A way in its own process, on one core.

    Args:
        command: What runs `serve`.
    """

    def __init__(self, command: list[str]) -> None:
        one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        core = max(os.sched_getaffinity(0))
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=(WORK / f"{command[-1]}.log").open("w"), text=True,
            env={**os.environ, **one, "PYTHONPATH": "."},
        )  # fmt: skip

    def ask(self, what: str) -> Any:
        """Return what the child prints; it may print other lines, too."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("["):
                return json.loads(line)
        raise RuntimeError(f"{self._process.args} ended; its log is in {WORK}")

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)
