"""A gzip file's bytes from any place on: states of the decompressor, kept on the first pass."""

import threading
import zlib
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zlib_ng import zlib_ng

from pipeline.readers.listing import damage_reported

type Take = Callable[[int, int], bytes]
"""Gives the file's bytes: offset, and at most how many."""

_DISTANCE = 2**18
"""Unpacked bytes between kept states, at first."""
_MOST = 800
"""Kept states, of some 40 kB each; a full-size AHSI product comes to one each 4 MiB."""
_PACKED = 2**14
"""Bytes taken at a time; each state may hold back so many."""


@dataclass
class State:
    """How far a file is unpacked."""

    unpack: Any
    """The decompressor."""
    position: int = 0
    """Bytes unpacked."""
    taken: int = 0
    """Bytes given to the decompressor; it may hold some of them back."""
    crc: int = 0
    """Of the unpacked bytes, where a container has it apart."""

    def copy(self) -> "State":
        return replace(self, unpack=self.unpack.copy())


def gzip_start() -> State:
    """Return the state at a gzip file's start."""
    return State(_member())


def gunzip(state: State, take: Take, limit: int) -> bytes:
    """Return the next up to `limit` bytes of a gzip file, none at its end; advances `state`.

    Members follow one another, zeros may follow them; each one's checksum is compared.

    Raises:
        zlib.error: The file is damaged.
        EOFError: It is cut short.
    """
    while True:
        packed = state.unpack.unconsumed_tail
        if state.unpack.eof:
            packed = _next_member(state, take)
            if not packed:
                return b""
        elif not packed:
            packed = _taken(state, take)
            if not packed:
                raise EOFError("gzip ends before its end mark")
        try:
            data: bytes = state.unpack.decompress(packed, limit)
        except zlib_ng.error as error:  # type: ignore[misc]  # the stubs lack its base
            raise zlib.error(str(error)) from error
        if data:
            state.position += len(data)
            return data


def _member() -> Any:
    return zlib_ng.decompressobj(16 + zlib_ng.MAX_WBITS)


def _taken(state: State, take: Take) -> bytes:
    packed = take(state.taken, _PACKED)
    state.taken += len(packed)
    return packed


def _next_member(state: State, take: Take) -> bytes:
    """Return the first bytes of the next member, for a fresh decompressor; none at the end."""
    rest: bytes = state.unpack.unused_data
    while not (rest := rest.lstrip(b"\0")):
        if not (rest := _taken(state, take)):
            return b""
    state.unpack = _member()
    return rest


class Checkpoints:
    """States of a gzip file's decompressor, in their order, to unpack on from.

    They are kept while the file is unpacked from its start. To other processes travels the path
    alone, and the file is unpacked there once more when a place in it is first asked for.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._states: list[State] = []
        self._distance = _DISTANCE
        self._complete = False

    def __reduce__(self) -> tuple[object, ...]:
        return Checkpoints, (self.path,)

    def __deepcopy__(self, memo: object) -> "Checkpoints":
        return self

    def unpacking(self, take: Take) -> Callable[[int], bytes]:
        """Return what gives the next up to so many bytes from the file's start on, none at its end.

        On the way states are kept; they are complete when the end was given.
        """
        state = gzip_start()
        self._states, self._distance, self._complete = [state.copy()], _DISTANCE, False

        def following(limit: int) -> bytes:
            data = gunzip(state, take, limit)
            self._complete = not data
            self._keep(state)
            return data

        return following

    def before(self, position: int) -> State:
        """Return the nearest state (a copy) at or before a place in the unpacked file.

        Raises:
            SceneError: The file, read again, is damaged.
        """
        with self._lock:
            if not self._complete:
                self._again()
            index = bisect_right(self._states, position, key=lambda state: state.position)
            return self._states[index - 1].copy()

    def _keep(self, state: State) -> None:
        # What the decompressor holds back would be kept as well: wait until it has nothing.
        held = state.unpack.unconsumed_tail or state.unpack.unused_data
        if held or state.position < self._states[-1].position + self._distance:
            return
        self._states.append(state.copy())
        if len(self._states) > _MOST:
            self._states = self._states[::2]
            self._distance *= 2

    def _again(self) -> None:
        with damage_reported(self.path, "a whole archive"), self.path.open("rb") as file:
            following = self.unpacking(lambda _, size: file.read(size))
            while following(2**20):
                pass
