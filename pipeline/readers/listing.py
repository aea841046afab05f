"""The files of a product as its folder or archive lists them, and what is refused there."""

import errno
import lzma
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from storage.schema import SceneError

TEXT_LIMIT = 2**20
"""Bytes; the longest text file of the known products has 16 kB."""
MEMBER_LIMIT = 10_000
"""The known products have at most 250 files."""
FILE_LIMIT = 2**33
"""Bytes; the largest file of the known products has 1.6 GB."""
_NAME_LIMIT = 1024
UNPACKED_LIMIT = 2**30
"""Bytes that any archive may unpack to."""
RATIO_LIMIT = 200
"""Times its own size that a larger archive may unpack to; scenes unpack to 2 to 10 times."""
FETCH_AGAIN = "the archive is damaged or cut short: fetch it again"
_DISTRUST = "do not trust this product; fetch it again from its source"
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError,
    # What the archive modules let through where a header is nonsense.
    struct.error, ValueError, OverflowError, NotImplementedError, RecursionError, IndexError,
)  # fmt: skip
_OUR_MACHINE = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM)


@dataclass(frozen=True)
class Zipped:
    """How a zip holds a member: enough to inflate and check it without the zip's list."""

    offset: int
    """Of its first (compressed) byte in the archive."""
    size: int
    """Bytes there."""
    method: Literal["stored", "deflated"]
    """`deflated`: raw DEFLATE, for `zlib.decompressobj(-15)`."""
    crc: int
    """CRC-32 of the unpacked bytes, as `zlib.crc32`."""


@dataclass(frozen=True)
class Member:
    """One file of a product."""

    name: str
    """Path inside the folder or archive, with `/`."""
    size: int
    """Bytes, unpacked."""
    offset: int = 0
    """First byte in the unpacked tar."""
    zipped: Zipped | None = None
    """Of a zip's member."""

    @property
    def basename(self) -> str:
        return self.name.rpartition("/")[2]


class damage_reported:  # noqa: N801  (used like a function)
    """Turn what zip, tar and file readers raise on damaged files into a SceneError."""

    def __init__(self, where: object, expected: str) -> None:
        self.where = where
        self.expected = expected

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _OUR_MACHINE:
            return
        if isinstance(error, _DAMAGED) and not isinstance(error, SceneError):
            got = f"{type(error).__name__}: {error}"
            raise SceneError(
                self.where, expected=self.expected, got=got, todo=FETCH_AGAIN
            ) from error


def checked_name(archive: Path, name: str) -> str:
    """Return a member's name if it stays in its folder and can be written in a message."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        refuse(archive, name, "a path that leads elsewhere")
    if not name.isprintable() or len(name) > _NAME_LIMIT:
        refuse(archive, name[:_NAME_LIMIT], "a name too long or of unprintable characters")
    return name


def check_count(where: Path, count: int) -> None:
    """Refuse more files than any product has."""
    if count > MEMBER_LIMIT:
        raise SceneError(
            where, expected=f"a product of at most {MEMBER_LIMIT} files", got="more",
            todo="give one product's folder or archive",
        )  # fmt: skip


def check_size(where: object, size: int) -> None:
    """Refuse a file larger than any product's, before it is hashed: a sparse one costs nothing."""
    if size > FILE_LIMIT:
        raise SceneError(
            where, expected=f"a file of at most {FILE_LIMIT} bytes", got=f"{size}", todo=_DISTRUST
        )


def check_twice(where: Path, members: list[Member]) -> None:
    """Refuse two members of one name: which one is read would depend on the reader."""
    names: set[str] = set()
    for member in members:
        if member.name in names:
            refuse(where, member.name, "two of that name")
        names.add(member.name)


def unpacked_limit(packed: int) -> int:
    """Return how many bytes an archive of `packed` bytes may unpack to."""
    return max(UNPACKED_LIMIT, RATIO_LIMIT * packed)


def too_large(where: Path, limit: int) -> SceneError:
    """Return the error on an archive that unpacks to more than `limit` bytes."""
    return SceneError(
        where, expected=f"an archive that unpacks to at most {limit} bytes "
                        f"(1 GiB or {RATIO_LIMIT} times its size)",
        got="one that unpacks to more", todo=_DISTRUST,
    )  # fmt: skip


def refuse(where: Path, name: str, got: str) -> None:
    """Raise the error on a member that no honest product has."""
    raise SceneError(
        f"{where}: member {name!a}", expected="a plain file inside the product's folder",
        got=got, todo=_DISTRUST,
    )  # fmt: skip
