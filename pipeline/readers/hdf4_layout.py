"""What an HDF4 file holds and where: its scientific data sets, found without the HDF4 library.

The library writes beyond its buffers on damaged files (3 % of 400 random damages ended the
process), so that a raw product could take a whole build with it. Data sets that lie in one
piece or in linked blocks are found here; packed and chunked ones are refused in words.

Source: HDF Specification and Developer's Guide 4.1r5 (tags, data descriptors, Vgroups, special
elements).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MAGIC = b"\x0e\x03\x13\x01"
_LINKED, _NUMBER_TYPE, _SDD, _SD, _NDG, _VGROUP = 20, 106, 701, 702, 720, 1965
_SPECIAL = 0x4000
"""Bit of a tag whose element lies in blocks, chunks, another file, or packed."""
_LINKED_BLOCKS = 1
_NUMBERS = {20: "i1", 21: "u1", 22: "i2", 23: "u2", 24: "i4", 25: "u4", 5: "f4", 6: "f8"}
_ORDERS = {1: ">", 4: "<"}
_DESCRIPTORS = 2**16
"""At most in a file: L1R and AUX files have under 1000."""
_ELEMENT_LIMIT = 2**20
"""Bytes of any element but pixels."""
_LAYOUT_LIMIT = 2**22
"""Bytes of them together, as often as they are named: L1R and AUX files have under 100 kB."""
_BLOCK_LIMIT = 2**17
"""Linked blocks of a data set."""

type Element = tuple[int, int]
"""Offset and length [byte]."""


class HdfError(ValueError):
    """A file that is no HDF4 file, or a damaged one, or has data that are packed."""


@dataclass(frozen=True)
class DataSet:
    """A data set: rows of all its further axes, one after the other, in pieces of the file."""

    shape: tuple[int, ...]
    dtype: str
    """NumPy's, with the file's byte order."""
    pieces: tuple[Element, ...]
    """In order; a piece that was never written has offset -1."""


def data_sets(file: IO[bytes], start: int, size: int) -> dict[str, DataSet]:
    """Return the data sets of an HDF4 file, by name.

    Args:
        file: That holds it.
        start: Its first byte there.
        size: Its length [byte].

    Raises:
        HdfError: It is damaged, or a data set is packed, chunked or in another file.
    """
    layout = _Layout(file, start, size)
    return dict(_found(layout, _variables(layout)))


class _Layout:
    """The elements of a file, by tag and reference, each known to lie inside it."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self.file, self.start, self.size = file, start, size
        self.left = _LAYOUT_LIMIT
        if self.bytes_at(0, 4) != MAGIC:
            raise HdfError("no HDF4 signature")
        self.elements: dict[tuple[int, int], Element] = {}
        block, seen = 4, 0
        while block:
            count, after = struct.unpack(">HI", self.bytes_at(block, 6))
            seen += count
            # A chain of blocks that bites its own tail ends here too.
            if seen > _DESCRIPTORS or count == 0:
                raise HdfError(f"{seen} descriptors, of at most {_DESCRIPTORS}")
            for tag, ref, offset, length in struct.iter_unpack(
                ">HHiI", self.bytes_at(block + 6, 12 * count)
            ):
                self.elements.setdefault((tag, ref), (offset, length))
            block = after

    def bytes_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self.size:
            raise HdfError(f"bytes {offset} to {offset + length} in a file of {self.size}")
        self.left -= length
        if self.left < 0:
            raise HdfError(f"a layout of more than {_LAYOUT_LIMIT} bytes")
        data = os.pread(self.file.fileno(), length, self.start + offset)
        if len(data) != length:
            raise HdfError(f"{len(data)} of {length} bytes at {offset}")
        return data

    def read(self, tag: int, ref: int) -> bytes:
        offset, length = self.elements.get((tag, ref), (-1, 0))
        if length > _ELEMENT_LIMIT:
            raise HdfError(f"an element {tag}/{ref} of {length} bytes")
        return self.bytes_at(offset, length)

    def pieces(self, ref: int) -> tuple[Element, ...]:
        """Return where the data `ref` of a data set lie."""
        if (_SD, ref) in self.elements:
            offset, length = self.elements[_SD, ref]
            if offset < 0 or offset + length > self.size:
                raise HdfError(f"data at bytes {offset} to {offset + length} of {self.size}")
            return ((offset, length),)
        if (_SD | _SPECIAL, ref) not in self.elements:
            return ()
        head = self.read(_SD | _SPECIAL, ref)
        (code,) = struct.unpack_from(">H", head)
        if code != _LINKED_BLOCKS:
            raise HdfError(f"data packed or chunked (special element {code}), which is not read")
        return tuple(self._linked(*struct.unpack_from(">iiiH", head, 2)))

    def _linked(self, length: int, block: int, count: int, table: int) -> Iterator[Element]:
        left, blocks = length, 0
        while left > 0:
            blocks += count
            if blocks > _BLOCK_LIMIT or count <= 0 or block <= 0:
                raise HdfError("linked blocks without an end")
            content = self.read(_LINKED, table)
            table, *refs = struct.unpack_from(f">H{count}H", content)
            for ref in refs:
                offset, size = self.elements.get((_LINKED, ref), (-1, block))
                if offset >= 0 and offset + size > self.size:
                    raise HdfError(f"a block at bytes {offset} to {offset + size}")
                size = min(size, left)
                if size > 0:
                    yield offset, size
                left -= size


@dataclass(frozen=True)
class _Variable:
    """What a data set's Vgroup says of it."""

    name: str
    grows: bool
    """Along its first axis: then its bytes say how many rows it has, its group does not."""


def _variables(layout: _Layout) -> dict[int, _Variable]:
    """Return data sets by the reference of their group of tags."""
    groups = {ref: _vgroup(layout.read(t, ref)) for t, ref in layout.elements if t == _VGROUP}
    found: dict[int, _Variable] = {}
    for name, kind, members in groups.values():
        if kind == "Var0.0":
            axes = [groups[ref][1] for tag, ref in members if tag == _VGROUP and ref in groups]
            variable = _Variable(name, axes[:1] == ["UDim0.0"])
            found |= {ref: variable for tag, ref in members if tag == _NDG}
    return found


def _vgroup(content: bytes) -> tuple[str, str, list[tuple[int, int]]]:
    """Return a Vgroup's name, class and members (tag, reference)."""
    (count,) = struct.unpack_from(">H", content)
    tags = struct.unpack_from(f">{count}H", content, 2)
    refs = struct.unpack_from(f">{count}H", content, 2 + 2 * count)
    name, after = _text(content, 2 + 4 * count)
    kind, _ = _text(content, after)
    return name, kind, list(zip(tags, refs, strict=True))


def _text(content: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">H", content, at)
    text = content[at + 2 : at + 2 + length].decode("ascii", errors="backslashreplace")
    return text, at + 2 + length


def _found(layout: _Layout, variables: dict[int, _Variable]) -> Iterator[tuple[str, DataSet]]:
    for tag, ref in layout.elements:
        if tag != _NDG:
            continue
        members = dict(struct.iter_unpack(">HH", layout.read(tag, ref)))
        if _SDD not in members:
            continue
        content = layout.read(_SDD, members[_SDD])
        (rank,) = struct.unpack_from(">H", content)
        shape = struct.unpack_from(f">{rank}i", content, 2)
        _, number = struct.unpack_from(">HH", content, 2 + 4 * rank)
        _, kind, _, order = layout.read(_NUMBER_TYPE, number)
        dtype = _ORDERS.get(order, "") + _NUMBERS.get(kind, "")
        pieces = layout.pieces(members.get(_SD, ref))
        # Without pieces it was never written: nothing to read.
        if pieces and len(dtype) == 3 and rank > 0 and min(shape[1:], default=1) > 0:
            variable = variables.get(ref, _Variable(f"{ref}", grows=False))
            yield variable.name, _whole(shape, dtype, pieces, grows=variable.grows)


def _whole(
    shape: tuple[int, ...], dtype: str, pieces: tuple[Element, ...], *, grows: bool
) -> DataSet:
    row = int(dtype[2])
    for size in shape[1:]:
        row *= size
    length = sum(size for _, size in pieces)
    rows = length // row if grows or shape[0] <= 0 else shape[0]
    if length < rows * row:
        raise HdfError(f"{length} bytes of data for {(rows, *shape[1:])} of {dtype}")
    return DataSet((rows, *shape[1:]), dtype, pieces)
