"""How the processes of a DataLoader begin and end, and which of them is dead."""

import atexit
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import torch

from hypersigma.orphans import end_with_parent

_END_SECONDS = 2.0
"""How long workers may take to end by themselves."""
_DEATH_SECONDS = 1.0
"""How long after a broken connection a worker may still be dying."""


def begin(_worker: int) -> None:
    """Set up a worker: it ends with its parent, and with one thread."""
    end_with_parent()
    # A spawned worker is taken down with its interpreter, while torch's own thread may be sending a
    # batch: which aborts it now and then.
    atexit.register(os._exit, 0)
    torch.set_num_threads(1)


def dead(batches: Any) -> int | None:
    """Return the process id of a worker of a DataLoader's iterator that is dead; None if none."""
    workers = getattr(batches, "_workers", ())
    until = time.monotonic() + _DEATH_SECONDS
    while workers and time.monotonic() < until:
        for worker in workers:
            if not worker.is_alive():
                return int(worker.pid)
        time.sleep(0.01)
    return None


def end(batches: Any) -> None:
    """End a DataLoader's workers now; it would do so when its iterator is forgotten.

    It waits 5 s for each in turn, which one that waits for a server would need: they have 2 s.
    """
    # That a worker is dead is no matter to batches that were taken; torch tells of it at any line.
    with suppress(RuntimeError):
        if not hasattr(batches, "_shutdown_workers"):
            return
        # Not of `batches`: a thread that lets go of the last tensor when Python ends takes it down.
        workers = batches._workers
        with _no_word_of_deaths(), suppress(RuntimeError):
            late = threading.Timer(_END_SECONDS, lambda: [worker.kill() for worker in workers])
            late.daemon = True
            late.start()
            batches._shutdown_workers()
            late.cancel()


@contextmanager
def _no_word_of_deaths() -> Iterator[None]:
    """Keep torch's signal handler from raising, which it does at any line of Python."""
    before = signal.getsignal(signal.SIGCHLD)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    for _ in range(2):  # it raises once for a loader; and this call is where it does if one waits
        with suppress(RuntimeError):
            signal.signal(signal.SIGCHLD, _nothing)
            break
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass
