"""Which of loader and device a run waits for, told from its records."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WAITING = 0.05
"""Share of the time that a device may wait before its loader is called too slow."""
WARM_UP_STEPS = 2
"""The first ones start readers and compile kernels."""


@dataclass(frozen=True)
class Pace:
    """How fast a run's steps were, and what of their time went by waiting for data."""

    samples_per_s: float
    waiting: float
    """Share of the time [1]."""


def pace(records: Sequence[Mapping[str, float]], samples: int) -> Pace | None:
    """Return the pace of finished steps, without the first ones; None: there are too few.

    Args:
        records: Of steps one behind the other, with `samples_per_s` and `data_wait` [s].
        samples: In each step.
    """
    told = [one for one in records[WARM_UP_STEPS:] if one.get("samples_per_s")]
    seconds = sum(samples / one["samples_per_s"] for one in told)
    if not told:
        return None
    waited = sum(one["data_wait"] for one in told)
    return Pace(samples * len(told) / seconds, min(1.0, waited / seconds))


def diagnosis(found: Pace, workers: int | None) -> str:
    """Return in a line what the run waits for, and what may help.

    Args:
        found: Its pace.
        workers: Processes that read; None: the kind of run has none.
    """
    if found.waiting <= WAITING:
        return f"compute-bound: {found.waiting:.0%} waiting for data"
    words = f"loader-bound: {found.waiting:.0%} waiting for data"
    if workers is None:
        return words
    # Readers work while the device does, so a step takes what they take for its batches: to come
    # as fast as the device alone would, there must be more of them in that proportion.
    enough = math.ceil(max(1, workers) / max(1 - found.waiting, 0.05))
    return f"{words}; try workers={max(workers + 1, enough)}"
