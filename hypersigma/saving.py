"""Checkpoints are written by a thread while training goes on, one at a time."""

import errno
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hypersigma import checkpoint
from hypersigma.checkpoint import Tensors
from hypersigma.mirror import Mirror
from hypersigma.runfolder import TrainError

logger = logging.getLogger(__name__)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a system says when a file has no room."""


class Saver:
    """Writes a run's checkpoints, and removes those that need not stay.

    With no room on the disk, the run goes on as long as an older checkpoint is whole: the next one
    may find room again.

    Args:
        run: Run folder.
        keep: How many of the newest checkpoints stay.
        keep_every: Checkpoints of steps that are multiples of it stay, too; 0: none.
        mirror: Is told of each new one.
    """

    def __init__(
        self, run: Path, *, keep: int, keep_every: int = 0, mirror: Mirror | None = None
    ) -> None:
        self._run, self._keep, self._every, self._mirror = run, keep, keep_every, mirror
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.saved: int | None = None
        """Step of the last checkpoint written."""

    def save(self, tensors: Tensors | None, state: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint when the last one is written; None: another process does.

        Raises:
            TrainError: The last one could not be written.
        """
        self.wait()
        if tensors is not None:
            self._thread = threading.Thread(
                target=self._write, args=(tensors, dict(state)), name="saver"
            )
            self._thread.start()

    def wait(self) -> None:
        """Wait for what is being written.

        Raises:
            TrainError: It could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise the error of what was written last.

        Raises:
            TrainError: It could not be written.
        """
        error, self._error = self._error, None
        if error is not None:
            raise TrainError(
                f"{self._run}: a checkpoint could not be written: {error}; "
                "the same command goes on from the last one that was"
            ) from error

    def finish(self, step: int) -> None:
        """Wait until the checkpoint of a run's last step is written.

        Raises:
            TrainError: It could not be.
        """
        began = self._thread is not None
        self.wait()
        if began and self.saved != step:
            raise TrainError(
                f"{self._run}: the checkpoint of step {step}, the last one, found no room on the "
                "disk; make room, and the same command goes on from the one before"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.join()

    def _write(self, tensors: Tensors, state: dict[str, Any]) -> None:
        best = state.get("best")
        try:
            checkpoint.save(self._run, tensors, state)
            self.saved = state["step"]
            spare = best["step"] if best else None
            checkpoint.prune(self._run, keep=self._keep, every=self._every, spare=spare)
            if self._mirror is not None:
                self._mirror.sync()
        except OSError as error:
            if error.errno in FULL and checkpoint.newest(self._run) is not None:
                logger.warning(
                    "no room for the checkpoint of step %d: %s; training goes on, and tries again "
                    "at the next one", state["step"], error,
                )  # fmt: skip
            else:
                self._error = error
        except BaseException as error:  # raised again by `wait`
            self._error = error
