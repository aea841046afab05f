"""A product's members as bytes read from front to back, unpacked once and checked on the way."""

import os
import threading
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

from zlib_ng import zlib_ng

from pipeline.readers.listing import Member, Zipped
from pipeline.readers.product import Product
from storage.schema import SceneError

_PACKED = 2**16
"""Bytes taken from the archive at a time."""
_CHECKPOINTS = 3
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


class Inflated:
    """A deflated member of a zip, unpacked as it is read; its checksum is verified at its end.

    Reads go forward at the cost of what lies between; a read a little before the last ones starts
    from a kept state, any other from the member's start. Safe to share between threads.

    Args:
        file: The archive.
        size: Of the member, unpacked [byte].
        zipped: Where and how the archive has it.
        where: How messages name it.
    """

    def __init__(self, file: Descriptor, size: int, zipped: Zipped, where: str) -> None:
        self._file, self._size, self._zipped, self._where = file, size, zipped, where
        self._lock = threading.Lock()
        self._saved: list[tuple[int, int, int, Any]] = []
        self._rewind()

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes of the unpacked member from `offset` on.

        Raises:
            SceneError: The member is damaged or shorter, or not what its checksum is of.
        """
        with self._lock:
            if offset < self._position:
                self._go_back(offset)
            while self._position < offset:
                self._next(min(offset - self._position, 2**20))
            self._saved = [*self._saved[1 - _CHECKPOINTS :], self._state()]
            parts = []
            while length > 0:
                parts.append(self._next(length))
                length -= len(parts[-1])
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """Read on to the end, where the checksum is verified."""
        with self._lock:
            while self._position < self._size:
                self._next(2**20)

    def _state(self) -> tuple[int, int, int, Any]:
        return self._position, self._taken, self._crc, self._unpack.copy()  # type: ignore[attr-defined]  # the stubs lack it

    def _rewind(self) -> None:
        self._position, self._taken, self._crc = 0, 0, 0
        self._unpack = zlib_ng.decompressobj(-zlib_ng.MAX_WBITS)

    def _go_back(self, offset: int) -> None:
        before = [state for state in self._saved if state[0] <= offset]
        if not before:
            self._rewind()
            return
        self._position, self._taken, self._crc, unpack = before[-1]
        self._unpack = unpack.copy()

    def _next(self, limit: int) -> bytes:
        """Return the next up to `limit` bytes, at least one."""
        while True:
            packed = self._unpack.unconsumed_tail
            if not packed:
                size = min(_PACKED, self._zipped.size - self._taken)
                packed = os.pread(self._file.number, size, self._zipped.offset + self._taken)
                self._taken += len(packed)
            try:
                data = self._unpack.decompress(packed, limit)
            except zlib_ng.error as error:  # type: ignore[misc]  # nor have they its base
                raise self._damaged(f"{error}") from error
            if data:
                break
            if self._unpack.eof or not packed:
                raise self._damaged(f"{self._position} bytes")
        self._position += len(data)
        self._crc = zlib_ng.crc32(data, self._crc)
        if self._position > self._size:
            raise self._damaged("more")
        if self._position == self._size and self._crc != self._zipped.crc:
            raise self._damaged("other content than its checksum is of")
        return data

    def _damaged(self, got: str) -> SceneError:
        return SceneError(
            self._where, expected=f"{self._size} bytes with checksum "
            f"{self._zipped.crc:08x}", got=got, todo=_FETCH_AGAIN,
        )  # fmt: skip


class Plain:
    """A file, or a member that is not packed, at some place of a file; opened for each read.

    Args:
        path: The file.
        start: Of the member in it [byte].
        where: How messages name it.
    """

    def __init__(self, path: Path, start: int, where: str) -> None:
        self._path, self._start, self._where = path, start, where

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
        """Do nothing: there is no checksum."""


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

    def open(self, member: Member) -> Inflated | Plain | None:
        """Return a member's bytes; None if it is packed in a way that has to be left to GDAL."""
        product, where = self.product, self.product.where(member)
        if product.kind == "folder":
            return Plain(product.path / member.name, 0, where)
        if product.kind == "tar":
            return Plain(product.path, member.offset, where)
        if product.kind != "zip" or member.zipped is None:
            return None
        if member.zipped.method == "stored":
            return Plain(product.path, member.zipped.offset, where)
        return Inflated(self._file, member.size, member.zipped, where)
