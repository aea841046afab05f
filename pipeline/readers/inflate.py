"""A product's members as bytes read from front to back, unpacked once and checked on the way."""

import os
import threading
import weakref
import zlib
from functools import cached_property
from pathlib import Path

from zlib_ng import zlib_ng

from pipeline.readers.gunzip import Checkpoints, State, gunzip
from pipeline.readers.listing import Member, Zipped
from pipeline.readers.product import Product
from storage.schema import SceneError

_PACKED = 2**16
"""Bytes taken from the archive at a time."""
_PIECE = 2**20
"""Most that is unpacked at a time to be passed over."""
_SAVED = 3
"""Places to go back to: threads may ask for two strips in the wrong order."""
_FETCH_AGAIN = "the archive is damaged or cut short: fetch it again"


class Descriptor:
    """An open file, closed when nothing refers to it any more.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)


class Unpacking:
    """Bytes that are unpacked as they are read.

    Reads go forward at the cost of what lies between; a read a little before the last ones starts
    from a kept state, any other from `_start`. Safe to share between threads.

    Args:
        file: The archive.
        where: How messages name what is read.
    """

    def __init__(self, file: Descriptor, where: str) -> None:
        self._file, self._where = file, where
        self._lock = threading.Lock()
        self._saved: list[State] = []
        self._state: State | None = None

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on.

        Raises:
            SceneError: They are damaged, not all there, or not what their checksum is of.
        """
        with self._lock:
            state = self._state = self._at(offset)
            while state.position < offset:
                self._next(state, min(offset - state.position, _PIECE))
            self._saved = [*self._saved[1 - _SAVED :], state.copy()]
            parts = []
            while length > 0:
                parts.append(self._next(state, length))
                length -= len(parts[-1])
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def _at(self, offset: int) -> State:
        """Return the nearest state at or before a place; where reading stopped, if that is it."""
        here = self._state
        if here is not None and here.position <= offset <= here.position + _PIECE:
            return here
        known = [self._state, *self._saved, self._start(offset)]
        before = [state for state in known if state is not None and state.position <= offset]
        best = max(before, key=lambda state: state.position)
        return best if best is self._state else best.copy()

    def _start(self, offset: int) -> State:
        """Return a state at or before a place, however far before."""
        raise NotImplementedError

    def _next(self, state: State, limit: int) -> bytes:
        """Return the next up to `limit` bytes, at least one; advances `state`."""
        raise NotImplementedError


class Inflated(Unpacking):
    """A deflated member of a zip; its checksum is verified at its end.

    Args:
        file: The archive.
        size: Of the member, unpacked [byte].
        zipped: Where and how the archive has it.
        where: How messages name it.
    """

    def __init__(self, file: Descriptor, size: int, zipped: Zipped, where: str) -> None:
        super().__init__(file, where)
        self._size, self._zipped = size, zipped

    def finish(self) -> None:
        """Read on to the end, where the checksum is verified."""
        with self._lock:
            state = self._state = self._state or self._start(0)
            while state.position < self._size:
                self._next(state, _PIECE)

    def _start(self, offset: int) -> State:
        return State(zlib_ng.decompressobj(-zlib_ng.MAX_WBITS))

    def _next(self, state: State, limit: int) -> bytes:
        while True:
            packed = state.unpack.unconsumed_tail
            if not packed:
                size = min(_PACKED, self._zipped.size - state.taken)
                packed = os.pread(self._file.number, size, self._zipped.offset + state.taken)
                state.taken += len(packed)
            try:
                data: bytes = state.unpack.decompress(packed, limit)
            except zlib_ng.error as error:  # type: ignore[misc]  # the stubs lack its base
                raise self._damaged(f"{error}") from error
            if data:
                break
            if state.unpack.eof or not packed:
                raise self._damaged(f"{state.position} bytes")
        state.position += len(data)
        state.crc = zlib_ng.crc32(data, state.crc)
        if state.position > self._size:
            raise self._damaged("more")
        if state.position == self._size and state.crc != self._zipped.crc:
            raise self._damaged("other content than its checksum is of")
        return data

    def _damaged(self, got: str) -> SceneError:
        return SceneError(
            self._where, expected=f"{self._size} bytes with checksum "
            f"{self._zipped.crc:08x}", got=got, todo=_FETCH_AGAIN,
        )  # fmt: skip


class Gunzipped(Unpacking):
    """A member of a tgz, unpacked from the nearest kept state on.

    Args:
        file: The archive.
        start: Of the member in the unpacked tar [byte].
        checkpoints: The archive's kept states.
        where: How messages name it.
    """

    def __init__(self, file: Descriptor, start: int, checkpoints: Checkpoints, where: str) -> None:
        super().__init__(file, where)
        self._begin, self._checkpoints = start, checkpoints

    def read(self, offset: int, length: int) -> bytes:
        return super().read(self._begin + offset, length)

    def finish(self) -> None:
        """Do nothing: the checksum was compared when the archive was listed."""

    def _start(self, offset: int) -> State:
        return self._checkpoints.before(offset)

    def _next(self, state: State, limit: int) -> bytes:
        try:
            data = gunzip(state, self._take, limit)
        except (zlib.error, EOFError) as error:
            raise self._damaged(f"{error}") from error
        if not data:
            raise self._damaged(f"an archive that unpacks to {state.position} bytes")
        return data

    def _take(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.number, size, offset)

    def _damaged(self, got: str) -> SceneError:
        return SceneError(
            self._where, expected="the member as it was listed", got=got, todo=_FETCH_AGAIN
        )


class Plain:
    """A file, or a member that is not packed, at some place of a file; opened for each read.

    Args:
        path: The file.
        start: Of the member in it [byte].
        where: How messages name it.
        stored: Of a zip's member, which has a checksum.
    """

    def __init__(self, path: Path, start: int, where: str, stored: Zipped | None = None) -> None:
        self._path, self._start, self._where, self._stored = path, start, where, stored

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on.

        Raises:
            SceneError: They are not all there.
        """
        with self._path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), length, self._start + offset)
        if len(data) != length:
            raise SceneError(
                self._where, expected=f"bytes {offset} to {offset + length}",
                got=f"only {len(data)} of them", todo=_FETCH_AGAIN,
            )  # fmt: skip
        return data

    def finish(self) -> None:
        """Read all of a zip's member, once, and compare its checksum; others have none."""
        if self._stored is None:
            return
        stored, self._stored = self._stored, None
        crc = 0
        for offset in range(0, stored.size, _PIECE):
            crc = zlib_ng.crc32(self.read(offset, min(_PIECE, stored.size - offset)), crc)
        if crc != stored.crc:
            raise SceneError(
                self._where, expected=f"{stored.size} bytes with checksum {stored.crc:08x}",
                got=f"{crc:08x}", todo=_FETCH_AGAIN,
            )  # fmt: skip


type Stream = Inflated | Gunzipped | Plain


class MemberStreams:
    """Opens members of a product as bytes, without unpacking them to disk.

    Args:
        product: A folder, zip or tar.
    """

    def __init__(self, product: Product) -> None:
        self.product = product

    @cached_property
    def _file(self) -> Descriptor:
        return Descriptor(self.product.path)

    def open(self, member: Member) -> Stream | None:
        """Return a member's bytes; None if it is packed in a way that has to be left to GDAL."""
        product, where = self.product, self.product.where(member)
        if product.kind == "folder":
            return Plain(product.path / member.name, 0, where)
        if product.kind == "tar":
            return Plain(product.path, member.offset, where)
        if product.unpacked is not None:
            return Plain(Path(f"/dev/fd/{product.unpacked.file().fileno()}"), member.offset, where)
        if product.checkpoints is not None:
            return Gunzipped(self._file, member.offset, product.checkpoints, where)
        if product.kind != "zip" or member.zipped is None:
            return None
        if member.zipped.method == "stored":
            return Plain(product.path, member.zipped.offset, where, member.zipped)
        return Inflated(self._file, member.size, member.zipped, where)
