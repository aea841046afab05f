"""A tar's list, plain or packed by gzip or xz, made in one pass that also hashes the archive."""

import hashlib
import lzma
import re
import tarfile
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from pipeline.readers.gunzip import Checkpoints
from pipeline.readers.listing import (
    TEXT_LIMIT,
    Member,
    check_count,
    check_twice,
    checked_name,
    damage_reported,
    refuse,
    too_large,
    unpacked_limit,
)

type Packing = Literal["tar", "tgz", "txz"]
_MAGIC: tuple[tuple[bytes, Packing], ...] = ((b"\x1f\x8b", "tgz"), (b"\xfd7zXZ\0", "txz"))
_TEXT = re.compile(r"(?i)MTL|\.(met|xml|rpb|raw|hdr|txt|csv)$")
_TEXTS_LIMIT = 2**26
"""Bytes of all texts that are kept."""
_XZ_MEMORY = 2**29
"""Bytes that unpacking may take; `xz -9` takes 65 MiB, a header may ask for 4 GiB."""
_PIECE = 2**20


@dataclass
class TarList:
    """What one pass over a tar finds."""

    packing: Packing
    members: list[Member] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    sha256: str = ""
    """Of the archive file."""
    unpacked: "Unpacked | None" = None
    """Of a tar.xz: all of it."""
    checkpoints: Checkpoints | None = None
    """Of a tgz."""


class Unpacked:
    """A tar.xz's tar in a temporary file without a name, which GDAL opens by its descriptor.

    GDAL reads no xz. It travels to other processes as the archive's path alone, and is unpacked
    there again when first read. The system removes the file with its last user.
    """

    def __init__(self, path: Path, file: IO[bytes] | None = None) -> None:
        self.path = path
        self._file = file
        self._lock = threading.Lock()
        if file is not None:
            weakref.finalize(self, file.close)

    def __reduce__(self) -> tuple[object, ...]:
        return Unpacked, (self.path,)

    def __deepcopy__(self, memo: object) -> "Unpacked":
        return self

    def file(self) -> IO[bytes]:
        with self._lock:
            if self._file is None:
                file = tempfile.TemporaryFile()  # noqa: SIM115  (lives with this object)
                weakref.finalize(self, file.close)
                with damage_reported(self.path, "a whole archive"), _opened(self.path) as stream:
                    stream.copy = file
                    stream.drain()
                    file.flush()
                self._file = file
            return self._file


def list_tar(path: Path) -> TarList:
    """List a tar, keep its small texts and hash it, in one pass.

    Of a tar.xz its pixels are kept as well, of a tgz the places to unpack it from.

    Raises:
        SceneError: A member is no plain file of the product, or they unpack to too much.
    """
    with _opened(path) as stream:
        found = TarList(stream.packing, checkpoints=stream.checkpoints)
        if stream.packing == "txz":
            stream.copy = tempfile.TemporaryFile()  # noqa: SIM115  (lives with the product)
            found.unpacked = Unpacked(path, stream.copy)
        kept = 0
        with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
            for info in tar:
                member = _member(path, info)
                if member is None:
                    continue
                found.members.append(member)
                check_count(path, len(found.members))
                if _TEXT.search(member.name) and member.size <= TEXT_LIMIT:
                    kept += member.size
                    content = tar.extractfile(info)
                    if kept <= _TEXTS_LIMIT and content is not None:
                        found.texts[member.name] = content.read()
        # Read to its very end, gzip and xz check their checksum; tarfile would stop before it.
        stream.drain()
        found.sha256 = stream.digest.hexdigest()
        if stream.copy is not None:
            stream.copy.flush()
    check_twice(path, found.members)
    return found


def _member(path: Path, info: tarfile.TarInfo) -> Member | None:
    name = checked_name(path, info.name)
    if info.isdir():
        return None
    if not info.isreg() or info.issparse() or info.size < 0:
        refuse(path, name, "a link or special file")
    return None if Path(name).name.startswith("._") else Member(name, info.size, info.offset_data)


@contextmanager
def _opened(path: Path) -> Iterator["_Forward"]:
    with path.open("rb") as file:
        yield _Forward(path, file)


class _Forward:
    """An archive's tar, read forward only, as a file for `tarfile`: hashed, counted, limited."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.copy: IO[bytes] | None = None
        self.digest = hashlib.sha256()
        head = file.read(6)
        file.seek(0)
        self.packing: Packing = next((p for magic, p in _MAGIC if head.startswith(magic)), "tar")
        self._limit = unpacked_limit(path.stat().st_size)
        self._position, self._last, self._back = 0, b"", False
        self.checkpoints = Checkpoints(path) if self.packing == "tgz" else None
        self._read = self._unpacking(_Hashed(file, self.digest))

    def read(self, size: int) -> bytes:
        # A header's name or a text; a member's bytes are skipped.
        if size > 2 * TEXT_LIMIT:
            raise tarfile.ReadError(f"a header of {size} bytes")
        if self._back and size:
            self._back = False
            return self._last + self.read(size - 1)
        parts = []
        while size > 0 and (part := self._read(size)):
            parts.append(part)
            size -= len(part)
        data = b"".join(parts)
        self._position += len(data)
        if self._position > self._limit:
            raise too_large(self.path, self._limit)
        if data:
            self._last = data[-1:]
        if self.copy is not None:
            self.copy.write(data)
        return data

    def _unpacking(self, file: "_Hashed") -> Callable[[int], bytes]:
        if self.checkpoints is not None:
            return self.checkpoints.unpacking(lambda _, size: file.read(size))
        return _Xz(file).read if self.packing == "txz" else file.read

    def tell(self) -> int:
        return self._position - self._back

    def seek(self, position: int) -> None:
        if self._back:
            self.read(1)
        self._back = position == self._position - 1
        if position < self._position - self._back:
            raise tarfile.ReadError("a member that begins before the one that it follows")
        while self._position < position and self.read(min(_PIECE, position - self._position)):
            pass

    def drain(self) -> None:
        self._back = False
        while self.read(_PIECE):
            pass


class _Hashed:
    """A file that hashes what is read from it."""

    def __init__(self, file: IO[bytes], digest: Any) -> None:
        self.file = file
        self.digest = digest

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


class _Xz:
    """What xz unpacks to, with a limit of memory, which `lzma.LZMAFile` has not."""

    def __init__(self, file: _Hashed) -> None:
        self.file = file
        self._unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        self._done = False

    def read(self, size: int) -> bytes:
        while not self._done:
            if self._unpack.eof:
                self._next_stream()
                continue
            packed = self.file.read(_PIECE) if self._unpack.needs_input else b""
            if self._unpack.needs_input and not packed:
                raise EOFError("xz ends before its end mark")
            if data := self._unpack.decompress(packed, size):
                return data
        return b""

    def _next_stream(self) -> None:
        rest = self._unpack.unused_data
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self.file.read(_PIECE)):
                self._done = True
                return
        # Eaten here, given back by the next call: an empty read of a fresh stream asks for more.
        self._unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        self._unpack.decompress(rest, 0)
