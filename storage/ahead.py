"""Make the next items in a thread while the last one is worked on."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

AHEAD_BYTES = 256 * 2**20
_END_SECONDS = 5.0
"""How long the end waits for an item that is being made; its thread holds up no exit."""


@dataclass
class _Waiting[T]:
    items: deque[T] = field(default_factory=deque)
    bytes: int = 0
    ended: bool = False
    """The source has no more items, or has failed."""
    error: BaseException | None = None
    stop: bool = False
    change: threading.Condition = field(default_factory=threading.Condition)


@contextmanager
def ahead[T](
    source: Iterator[T],
    *,
    depth: int | None = None,
    most: int = AHEAD_BYTES,
    size: Callable[[T], int] = lambda _: 0,
) -> Iterator[Iterator[T]]:
    """Run `source` in a thread; its order and its errors are kept.

    Args:
        source: Belongs to the thread until the end.
        depth: Items that wait; None: as many as `most` allows.
        most: Bytes of items that wait; one may wait whatever its size.
        size: Of an item [B].
    """
    waiting: _Waiting[T] = _Waiting()
    thread = threading.Thread(
        target=_make, args=(source, waiting, depth, most, size), name="ahead", daemon=True
    )
    thread.start()
    try:
        yield _taken(waiting, size)
    finally:
        with waiting.change:
            waiting.stop = True
            waiting.items.clear()
            waiting.change.notify_all()
        thread.join(_END_SECONDS)


def _make[T](
    source: Iterator[T],
    waiting: _Waiting[T],
    depth: int | None,
    most: int,
    size: Callable[[T], int],
) -> None:
    def is_full() -> bool:
        many = depth is not None and len(waiting.items) >= depth
        return bool(waiting.items) and (many or waiting.bytes >= most)

    try:
        for item in source:
            with waiting.change:
                waiting.change.wait_for(lambda: waiting.stop or not is_full())
                if waiting.stop:
                    return
                waiting.items.append(item)
                waiting.bytes += size(item)
                waiting.change.notify_all()
    except BaseException as error:  # raised again where the items are taken
        waiting.error = error
    finally:
        with waiting.change:
            waiting.ended = True
            waiting.change.notify_all()


def _taken[T](waiting: _Waiting[T], size: Callable[[T], int]) -> Iterator[T]:
    while True:
        with waiting.change:
            waiting.change.wait_for(lambda: waiting.items or waiting.ended)
            if not waiting.items:
                break
            item = waiting.items.popleft()
            waiting.bytes -= size(item)
            waiting.change.notify_all()
        yield item
    if waiting.error is not None:
        raise waiting.error
