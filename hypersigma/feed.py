"""A process's batches from a place in the stream on, made ahead; how long they are waited for."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from storage.ahead import ahead

DEPTH = 2
"""Batches that wait."""

type Batches[T] = Iterator[tuple[T, dict[str, Any]]]
"""Endless batches, each with the state of the stream after it and those of the other processes."""


class Feed[T]:
    """The batches of a run, in their order.

    Args:
        batches: Of a stream's state; None: from the start.
        state: Where to begin.
        waits: Called with True before a batch is waited for, and with False when it is there.
    """

    def __init__(
        self,
        batches: Callable[[Mapping[str, Any] | None], Batches[T]],
        state: Mapping[str, Any] | None,
        waits: Callable[[bool], None],
    ) -> None:
        self._open = ExitStack()
        self._next = self._open.enter_context(ahead(batches(state), depth=DEPTH))
        self._waits = waits
        self.waited = 0.0
        """All in all [s]."""

    def take(self) -> tuple[T, dict[str, Any]]:
        """Return the next batch, and the stream's state after it."""
        asked = time.perf_counter()
        self._waits(True)
        found = next(self._next)
        self._waits(False)
        self.waited += time.perf_counter() - asked
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()
