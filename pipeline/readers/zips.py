"""A zip's list, checked; its members' checksums are left to those who read them."""

import stat
import struct
import zipfile
from pathlib import Path
from typing import IO, Literal

from pipeline.readers.listing import (
    FETCH_AGAIN,
    Member,
    Zipped,
    check_count,
    check_twice,
    checked_name,
    refuse,
    too_large,
    unpacked_limit,
)
from storage.schema import SceneError

_METHODS: dict[int, Literal["stored", "deflated"]] = {
    zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated",
}  # fmt: skip
_LIST_LIMIT = 2**24
"""Bytes of a zip's list, which is held in memory: that of 250 files has 25 kB."""
_LOCAL = struct.Struct("<4s2xHH16xHH")
"""Of a member's own header: signature, flags, method, lengths of name and extra field."""
_END = struct.Struct("<4s8xI")
"""Of the record at a zip's end: signature, bytes of the list."""


def list_zip(path: Path) -> list[Member]:
    """Return a zip's members, each with the place of its bytes; unpacks nothing.

    Raises:
        SceneError: A member is no plain file of the product, is packed in a way that is not read,
            or does not lie where the list says; or they unpack to too much.
    """
    _check_list_size(path)
    members, ends = [], []
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        check_count(path, len(archive.infolist()))
        for info in archive.infolist():
            name = checked_name(path, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                refuse(path, name, "a link")
            zipped = _place(path, file, info)
            ends.append((info.header_offset, zipped.offset + zipped.size))
            if not info.is_dir() and not name.rpartition("/")[2].startswith("._"):
                members.append(Member(name, info.file_size, zipped=zipped))
    check_twice(path, members)
    _check_places(path, ends)
    limit = unpacked_limit(path.stat().st_size)
    if sum(member.size for member in members) > limit:
        raise too_large(path, limit)
    return members


def _check_list_size(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 2**16 - 22, 0))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at >= 0 and len(tail) - at >= _END.size and _END.unpack_from(tail, at)[1] > _LIST_LIMIT:
        raise SceneError(
            path, expected=f"a zip whose list has at most {_LIST_LIMIT} bytes",
            got=f"{_END.unpack_from(tail, at)[1]}", todo=FETCH_AGAIN,
        )  # fmt: skip


def _place(path: Path, file: IO[bytes], info: zipfile.ZipInfo) -> Zipped:
    """Return where a member's bytes are, from its own header."""
    file.seek(info.header_offset)
    signature, flags, method, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
    if signature != b"PK\3\4" or method != info.compress_type:
        raise zipfile.BadZipFile(f"no header of {info.filename!a} where the list has it")
    if (flags | info.flag_bits) & 1 or method not in _METHODS:
        raise SceneError(
            path / info.filename, expected="a member stored or deflated",
            got="one encrypted or compressed otherwise", todo="pack the product again",
        )  # fmt: skip
    offset = info.header_offset + _LOCAL.size + name + extra
    return Zipped(offset, info.compress_size, _METHODS[method], info.CRC)


def _check_places(path: Path, ends: list[tuple[int, int]]) -> None:
    """Refuse members that share bytes or end beyond the file."""
    ends.sort()
    starts = [start for start, _ in ends[1:]] + [path.stat().st_size]
    if any(end > start for (_, end), start in zip(ends, starts, strict=True)):
        raise zipfile.BadZipFile("members overlap, or end beyond the archive")
