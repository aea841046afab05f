"""Ranges of a bucket's objects by concurrent requests, in a thread that holds up no exit."""

import asyncio
import os
import random
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from obstore import get_range_async
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import ObjectStore

from storage.location import files_at
from storage.schema import DamagedError

CONCURRENCY = 16
"""Requests that are under way to a bucket at a time."""
TRIES = 3
_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LAST_SECONDS = 0.1

type _Ask = tuple[str, int, memoryview]
"""Name, offset, and where the bytes are to go."""
type _Come = Callable[[int, DamagedError | None], None]


class Requests:
    """A client of a bucket, and a thread in which its requests run."""

    def __init__(self, root: str) -> None:
        self._root, self._objects = root, connect(root)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, name="requests", daemon=True).start()
        self._at_once = asyncio.Semaphore(CONCURRENCY)
        self._lock = threading.Lock()
        self._closed = False

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def fill(self, asks: Sequence[_Ask], come: _Come) -> None:
        """Fetch all ranges; `come` is called here with each one's number and what went wrong."""
        if not asks:
            return
        _refuse_after_fork()
        ready: SimpleQueue[tuple[int, DamagedError | None] | None] = SimpleQueue()
        with self._lock:
            if self._closed:
                raise ConnectionAbortedError(f"{self._root} is not read any more")
            future = asyncio.run_coroutine_threadsafe(self._fill(asks, ready.put), self._loop)
        future.add_done_callback(lambda _: ready.put(None))
        try:
            while (one := ready.get()) is not None:
                come(*one)
            future.result()
        except BaseException:  # Ctrl-C: nobody waits for them any more
            future.cancel()
            raise

    def close(self) -> None:
        """Give all requests up."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._give_up)

    def _give_up(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        # Behind the tasks' own ends, which tell those who wait for them.
        self._loop.call_later(_LAST_SECONDS, self._loop.stop)

    async def _fill(
        self, asks: Sequence[_Ask], put: Callable[[tuple[int, DamagedError | None]], None]
    ) -> None:
        async def one(number: int, ask: _Ask) -> None:
            put((number, await self._fetch(*ask)))

        await asyncio.gather(*(one(number, ask) for number, ask in enumerate(asks)))

    async def _fetch(self, name: str, offset: int, into: memoryview) -> DamagedError | None:
        why = ""
        for number in range(TRIES):
            if number:
                # Of a random length: readers that failed together must not come back together.
                pause = min(_PAUSE * 2**number, _LONGEST_PAUSE)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # no secret
            try:
                async with self._at_once:
                    got = memoryview(
                        await get_range_async(self._objects, name, start=offset, length=len(into))
                    )
            except (NotFoundError, FileNotFoundError) as error:
                return DamagedError(f"{self._root}/{name} is not there: {error}")
            except (BaseError, OSError) as error:
                why = str(error)
                continue
            if len(got) == len(into):
                into[:] = got
                return None
            why = f"{len(got)} bytes of {len(into)}"
        return DamagedError(
            f"{self._root}/{name} could not be read from byte {offset} on in {TRIES} tries: {why}"
        )


_connected = False
_forked_from_one = False


def connect(root: str) -> ObjectStore:
    """Return a client of a bucket, and note that this process has one.

    Raises:
        RuntimeError: This process was forked from one that has a client.
    """
    global _connected
    _refuse_after_fork()
    _connected = True
    return files_at(root)


def _refuse_after_fork() -> None:
    if _forked_from_one:
        raise RuntimeError(
            "this process was forked from one that had already read from a bucket, and would hang: "
            "start workers by spawn or forkserver, or fork them before the first read"
        )


def _note_fork() -> None:
    global _forked_from_one
    _forked_from_one = _forked_from_one or _connected


os.register_at_fork(after_in_child=_note_fork)
