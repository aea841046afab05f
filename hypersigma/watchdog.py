"""Ends a process that stands still, and says where: its scheduler starts it again."""

import faulthandler
import logging
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from hypersigma import distributed

logger = logging.getLogger(__name__)

STALLS_FOLDER = "stalls"
_LOOKS = 20
"""How often it looks while a step may last."""


class Watchdog:
    """Watches for finished steps, from a thread of its own.

    Args:
        run: Run folder; `stalls/` in it gets the stacks of all threads, a file a process.
        seconds: How long a step may last; None: for ever.
    """

    def __init__(self, run: Path, seconds: float | None) -> None:
        self._run, self._seconds = run, seconds
        self._last, self._step, self._waits = time.monotonic(), 0, False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def stepped(self, step: int) -> None:
        """Note a finished step."""
        self._last, self._step = time.monotonic(), step

    def waits_for_data(self, waits: bool) -> None:
        """Note whether the loop waits for a batch."""
        self._waits = waits

    def __enter__(self) -> Self:
        if self._seconds is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._seconds is not None:
            self._thread.join()

    def _watch(self) -> None:
        seconds = self._seconds or 0.0
        while not self._end.wait(seconds / _LOOKS):
            if time.monotonic() - self._last > seconds:
                self._tell(seconds)
                # Not sys.exit: the thread that hangs would be waited for.
                os._exit(1)

    def _tell(self, seconds: float) -> None:
        rank = distributed.rank()
        what = "waits for a batch" if self._waits else "computes, or waits for other processes"
        text = f"no step for {seconds:g} s since step {self._step}: process {rank} {what}"
        path = self._run / STALLS_FOLDER / f"step-{self._step:08d}-process-{rank}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write(text + "\n\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        logger.error("%s; its threads are in %s; ending", text, path)
