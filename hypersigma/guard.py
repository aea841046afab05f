"""Which steps went wrong, and what a run does about it: goes back, leaves their batches out.

`guard.json` in the run folder lists them; a run that goes on leaves out what is in it.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pydantic.dataclasses
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt

from hypersigma.runlog import plain_json

GUARD_FILE = "guard.json"
NORMAL = 1.4826
"""A normal distribution's standard deviation by its median absolute deviation."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class GuardConfig:
    """What counts as a step gone wrong; a loss or gradient that is not finite always does."""

    spike_sigmas: PositiveFloat | None = None
    """A loss above the median of the last ones by so many robust standard deviations; null: none.
    For large batches, whose losses differ little: single samples may well differ by more."""
    window: PositiveInt = 100
    """Losses that the median is of; there is no spike before there are so many."""
    rewinds: NonNegativeInt = 5
    """How often a run goes back to its last checkpoint before it stops."""


@dataclass(frozen=True)
class Trouble:
    """A step gone wrong."""

    step: int
    """Counted from 1."""
    slot: int
    """Which of the stream's steps its batches are, counted from 0; left out from now on."""
    reason: str
    loss: float | None
    """None: not finite."""
    grad_norm: float | None
    samples: list[str]
    """Ids of its samples."""


class BadStepError(RuntimeError):
    """Raised out of the loop by a step gone wrong."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


def wrong(loss: float, norm: float, recent: Sequence[float], config: GuardConfig) -> str | None:
    """Return what is wrong with a step, or None.

    Args:
        loss: Of the step.
        norm: Of its gradient.
        recent: Losses of the steps before, as `remembered` returns them.
        config: What counts.

    Source: Leys et al. 2013, doi:10.1016/j.jesp.2013.03.013 (median absolute deviation).
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return f"expected a finite loss and gradient, got {loss} and {norm}"
    if config.spike_sigmas is None or len(recent) < config.window:
        return None
    middle = statistics.median(recent)
    spread = NORMAL * statistics.median(abs(one - middle) for one in recent)
    if loss <= middle + config.spike_sigmas * spread:
        return None
    return (
        f"a loss of {loss:.4g} is above the median {middle:.4g} of the last {len(recent)} "
        f"by more than {config.spike_sigmas:g} x {spread:.2g}"
    )


def remembered(loss: float, recent: Sequence[float], config: GuardConfig) -> tuple[float, ...]:
    """Return the losses that the next step is compared with."""
    return () if config.spike_sigmas is None else (*recent, loss)[-config.window :]


def troubles(run: Path) -> list[Trouble]:
    """Return a run's steps gone wrong so far, oldest first."""
    path = run / GUARD_FILE
    if not path.exists():
        return []
    return [Trouble(**one) for one in json.loads(path.read_text(encoding="utf-8"))["troubles"]]


def note(run: Path, trouble: Trouble) -> list[Trouble]:
    """Add a step gone wrong to the run's list, whole or not at all, and return the list."""
    found = [*troubles(run), trouble]
    temporary = run / f".{GUARD_FILE}"
    plain = {"troubles": [asdict(one) for one in found]}
    temporary.write_text(plain_json(plain), encoding="utf-8")
    temporary.replace(run / GUARD_FILE)
    return found
