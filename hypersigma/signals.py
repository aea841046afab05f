"""Requests to stop, which a run follows at the end of its step."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

logger = logging.getLogger(__name__)

PREEMPTED = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send before they take a machine away."""


_early: set[str] = set()
"""What was asked for before there was a run to stop."""


@contextmanager
def noted_early() -> Iterator[None]:
    """Note what schedulers send before a run has begun: it then stops at its first step.

    Imports and data may take a minute, in which such a signal would end the process without a mark.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note_early) for number in PREEMPTED}
    try:
        yield
    finally:
        _early.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def _note_early(number: int, frame: FrameType | None) -> None:
    _early.add("preempted")
    logger.warning("%s: stopping when the run has begun", signal.Signals(number).name)


@dataclass
class Requests:
    """What was asked for.

    A signal may come to one process sooner than to another, so it counts when all know of it.
    """

    noted: set[str] = field(default_factory=set)
    """By signals to this process: `interrupted`, `preempted`."""
    interrupted: bool = False
    """By Ctrl-C: somebody is there, and is told."""
    preempted: bool = False
    """By a scheduler: this is no failure, and it will start the run again."""

    @property
    def any(self) -> bool:
        """Whether to stop."""
        return self.interrupted or self.preempted


@contextmanager
def stop_requests() -> Iterator[Requests]:
    """Note Ctrl-C, SIGTERM and SIGUSR1, so that a step can be finished; a second Ctrl-C kills."""
    asked = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            asked.noted.add("interrupted")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            logger.warning("interrupted: finishing this step and saving; once more to stop at once")
        else:
            asked.noted.add("preempted")
            name = signal.Signals(number).name
            logger.warning("%s: finishing this step and saving", name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, *PREEMPTED)}
    asked.noted |= _early
    try:
        yield asked
    finally:
        for number, handler in before.items():
            # What comes behind the last step ends the process.
            signal.signal(number, signal.SIG_DFL if handler is _note_early else handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Let processes that are started here, and theirs, go on when a run is asked to stop.

    Terminals and schedulers send their signals to every process; it is for the training one to end
    its workers. What a thread blocks is blocked in processes that it starts.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *PREEMPTED})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
