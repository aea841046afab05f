"""Bytes of a set's files, read where they are wanted: from a folder, or from a bucket.

A read that fails is told with the range that it was for; the others are not hurt by it.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from storage.payloads import Payloads
from storage.requests import Requests
from storage.schema import DamagedError

OPEN_FILES = 128


@dataclass(frozen=True, slots=True)
class Range:
    """Some bytes of a file, and where they are to go."""

    name: str
    offset: int
    into: memoryview
    payload: tuple[int, int]
    """Offset and length of the tile's whole payload, in which the range lies."""


type Check = Callable[[int], DamagedError | None]
"""Says what is wrong with the range of a number, as soon as it is filled and in a CPU's cache."""


class Files(Protocol):
    """Where ranges are read."""

    one_by_one: bool
    """Each range is checked before the next is filled: all may have the same place."""

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

    one_by_one = True

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

    one_by_one = False

    def __init__(self, root: str, digests: Mapping[str, str], payloads: Payloads | None) -> None:
        self._requests: Requests | None = None
        self._root, self._digests, self._payloads = root, digests, payloads

    def read(self, ranges: Sequence[Range], check: Check) -> list[DamagedError | None]:
        if self._requests is None:
            self._requests = Requests(self._root)
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
