"""Bytes of a set's files, read where they are wanted: from a folder, or from a bucket.

A read that fails is told with the range that it was for; the others are not hurt by it.
"""

import asyncio
import os
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from obstore import get_range_async
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import ObjectStore

from storage.location import files_at
from storage.payloads import Payloads
from storage.schema import SchemaError

OPEN_FILES = 128
CONCURRENCY = 16
"""Requests that are under way to a bucket at a time."""
TRIES = 3
_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LAST_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Range:
    """Some bytes of a file, and where they are to go."""

    name: str
    offset: int
    into: memoryview
    payload: tuple[int, int]
    """Offset and length of the tile's whole payload, in which the range lies."""


class DamagedError(SchemaError):
    """Bytes of a set of shards that are missing or not what they were."""


type Check = Callable[[int], DamagedError | None]
"""Says what is wrong with the range of a number, as soon as it is filled and in a CPU's cache."""


class Files(Protocol):
    """Where ranges are read."""

    def read(self, ranges: Sequence[Range], check: Check) -> list[DamagedError | None]:
        """Fill all ranges, and check each that is filled; return what went wrong with each."""

    def forget(self, name: str, payload: tuple[int, int]) -> bool:
        """Drop what is kept near of a payload; return whether there was something."""

    def interrupt(self) -> None:
        """Let reads that wait for a server fail at once, until `close`; called by any thread."""

    def close(self) -> None:
        """Close files and connections; a later read opens them again."""


def files_of(
    root: Path | str, digests: Mapping[str, str], payloads: Payloads | None = None
) -> Files:
    """Return the files of a set: a folder, or `s3://bucket/prefix`.

    Args:
        root: Where the set is.
        digests: sha256 of each file, by its name.
        payloads: Keeps what comes from a bucket on disk; None: nothing is kept.
    """
    if "://" in str(root):
        return RemoteFiles(str(root), digests, payloads)
    return LocalFiles(Path(root))


class LocalFiles:
    """Files of a folder; those that were read last stay open. Pickles without them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, ranges: Sequence[Range], check: Check) -> list[DamagedError | None]:
        return [self._read(one) or check(number) for number, one in enumerate(ranges)]

    def forget(self, name: str, payload: tuple[int, int]) -> bool:
        return False

    def interrupt(self) -> None:
        pass  # a disk answers

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens its own.
        return LocalFiles, (self._root,)

    def __del__(self) -> None:
        self.close()

    def _read(self, one: Range) -> DamagedError | None:
        done, size = 0, len(one.into)
        try:
            file = self._file(one.name)
            while done < size:
                got = os.preadv(file, [one.into[done:]], one.offset + done)
                if not got:
                    return DamagedError(
                        f"{self._root / one.name} ends before byte {one.offset + size}: cut short "
                        "since it was opened; write the set again with `hypersigma-data shards`"
                    )
                done += got
        except OSError as error:
            return DamagedError(f"{self._root / one.name} cannot be read: {error}")
        return None

    def _file(self, name: str) -> int:
        if name not in self._open:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[name] = os.open(self._root / name, os.O_RDONLY)
        self._open.move_to_end(name)
        return self._open[name]


class RemoteFiles:
    """Objects of a bucket: ranges by concurrent requests, tried again with growing pauses.

    With `payloads` the whole payload of a tile is fetched once and kept; else the range alone.
    Requests run in a daemon thread, so that no exit waits for a server. Pickles without it.
    """

    def __init__(self, root: str, digests: Mapping[str, str], payloads: Payloads | None) -> None:
        self._requests: _Requests | None = None
        self._root, self._digests, self._payloads = root, digests, payloads

    def read(self, ranges: Sequence[Range], check: Check) -> list[DamagedError | None]:
        if self._requests is None:
            self._requests = _Requests(self._root)
        errors: list[DamagedError | None] = [None] * len(ranges)
        missing, wanted = [], []
        for number, one in enumerate(ranges):
            if self._is_near(one):
                errors[number] = check(number)
                continue
            near = self._payloads is not None
            into = memoryview(bytearray(one.payload[1])) if near else one.into
            missing.append(number)
            wanted.append((one.name, one.payload[0] if near else one.offset, into))

        def come(place: int, error: DamagedError | None) -> None:
            number, whole = missing[place], wanted[place][2]
            if error is None and self._payloads is not None:
                one = ranges[number]
                start = one.offset - one.payload[0]
                one.into[:] = whole[start : start + len(one.into)]
                self._payloads.keep(self._digests[one.name], one.payload, whole)
            errors[number] = error or check(number)

        self._requests.fill(wanted, come)
        return errors

    def forget(self, name: str, payload: tuple[int, int]) -> bool:
        return self._payloads is not None and self._payloads.forget(self._digests[name], payload)

    def interrupt(self) -> None:
        if (requests := self._requests) is not None:
            requests.close()

    def close(self) -> None:
        self.interrupt()
        self._requests = None

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFiles, (self._root, self._digests, self._payloads)

    def __del__(self) -> None:
        self.close()

    def _is_near(self, one: Range) -> bool:
        if self._payloads is None:
            return False
        start = one.offset - one.payload[0]
        return self._payloads.read(self._digests[one.name], one.payload, start, one.into)


type _Ask = tuple[str, int, memoryview]
"""Name, offset, and where the bytes are to go."""
type _Come = Callable[[int, DamagedError | None], None]


class _Requests:
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
