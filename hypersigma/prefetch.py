"""Make the next batches in a thread while the device works on this one."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    """The source has no more items."""


@contextmanager
def prefetch[T](source: Iterator[T], *, depth: int = 2) -> Iterator[Iterator[T]]:
    """Run `source` in a thread, at most `depth` items ahead; its order and its errors are kept."""
    ready: queue.Queue[T | _Failure | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: T | _Failure | _End) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in source:
                put(item)
                if stop.is_set():
                    return
            put(_End())
        except BaseException as error:  # raised again in the consumer
            put(_Failure(error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield _consume(ready)
    finally:
        stop.set()
        thread.join()


def _consume[T](ready: queue.Queue[T | _Failure | _End]) -> Iterator[T]:
    while True:
        item = ready.get()
        if isinstance(item, _End):
            return
        if isinstance(item, _Failure):
            raise item.error
        yield item
