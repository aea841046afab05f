"""Where a plain GeoTIFF's pixels lie in its file, so that they can be read as they stream past."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

HEAD_BYTES = 2**16
"""A file's directory must lie within so many bytes of its start."""
_LONG_HEAD = 2**20
"""And the numbers that it refers to within so many."""
_ORDERS: dict[bytes, Literal["<", ">"]] = {b"II*\0": "<", b"MM\0*": ">"}
_ONE = np.ones(1, np.int64)
_TYPES = {3: "H", 4: "I"}
"""Of the tags that matter here."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes a value, by type."""
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS = 256, 257, 258, 259, 273
_SAMPLES, _STRIP_ROWS, _COUNTS, _PLANES, _PREDICTOR, _TILE_WIDTH = 277, 278, 279, 284, 317, 322
_FORMAT = 339


@dataclass(frozen=True)
class PlainImage:
    """Rows of 16-bit integers in strips that are not compressed, band after band."""

    height: int
    width: int
    byte_order: Literal["<", ">"]
    """`<` or `>`."""
    strip_rows: int
    offsets: NDArray[np.int64]
    """Of each strip's first pixel [byte]: (band, strip)."""

    @property
    def bands(self) -> int:
        return len(self.offsets)

    @cached_property
    def contiguous(self) -> bool:
        """Whether in each band the strips follow one another without gaps."""
        step = 2 * self.strip_rows * self.width
        return bool((np.diff(self.offsets, axis=1) == step).all())

    def spans(self, first: int, end: int, band: int = 0) -> list[tuple[int, int]]:
        """Return offset and length [byte] of what holds a band's rows `first` to `end`, in order.

        `band` is 0-based.
        """
        offsets, row_bytes = self.offsets[band], 2 * self.width
        if self.contiguous:
            return [(int(offsets[0]) + first * row_bytes, (end - first) * row_bytes)]
        found: list[tuple[int, int]] = []
        row = first
        while row < end:
            strip, inside = divmod(row, self.strip_rows)
            rows = min(self.strip_rows - inside, end - row)
            offset, length = int(offsets[strip]) + inside * row_bytes, rows * row_bytes
            if found and sum(found[-1]) == offset:
                offset, length = found[-1][0], found.pop()[1] + length
            found.append((offset, length))
            row += rows
        return found


def read_head(read: Callable[[int, int], bytes], size: int) -> bytes:
    """Return a file's first bytes, as many as hold a TIFF's directory and its numbers.

    Args:
        read: Gives the file's bytes: offset and length.
        size: Of the file [byte].
    """
    head = read(0, min(HEAD_BYTES, size))
    end = _directory_end(head)
    return read(0, end) if len(head) < end <= min(size, _LONG_HEAD) else head


def has_directory(head: bytes) -> bool:
    """Say whether all values of a TIFF's first directory are in `head`."""
    return 0 < _directory_end(head) <= len(head)


def plain_image(head: bytes) -> PlainImage | None:
    """Return where a TIFF's pixels lie, None if GDAL had better read them.

    None for BigTIFF, tiles, compression, bands interleaved by pixel, and a directory that is not
    in `head`.

    Args:
        head: The file's first bytes, see `read_head`, or all of it.

    Source: TIFF revision 6.0, sections 2, 3, 8 and 19 (PlanarConfiguration, SampleFormat).
    """
    try:
        order, tags = _ORDERS[head[:4]], _tags(head)
    except (struct.error, ValueError, KeyError):
        return None
    needed = (_HEIGHT, _WIDTH, _BITS, _OFFSETS, _COUNTS)
    if _TILE_WIDTH in tags or any(not len(tags.get(tag, ())) for tag in needed):
        return None
    bands = int(tags[_SAMPLES][0]) if len(tags.get(_SAMPLES, ())) else 1
    fixed = {_COMPRESSION: 1, _PREDICTOR: 1} | ({_PLANES: 2} if bands > 1 else {})
    # Not said is 1, also of planes.
    if bands < 1 or any(tags.get(tag, _ONE).tolist() != [value] for tag, value in fixed.items()):
        return None
    each = [tags[tag] for tag in (_BITS, _FORMAT) if tag in tags]
    if (tags[_BITS] != 16).any() or any(len(np.unique(values)) != 1 for values in each):
        return None
    height, width = int(tags[_HEIGHT][0]), int(tags[_WIDTH][0])
    strip_rows = min(height, int(tags[_STRIP_ROWS][0]) if _STRIP_ROWS in tags else height)
    if not (strip_rows > 0 and width > 0):
        return None
    if tags[_OFFSETS].size != bands * -(-height // strip_rows):
        return None
    starts = np.arange(0, height, strip_rows)
    expected = np.tile(2 * width * np.minimum(strip_rows, height - starts), bands)
    if not np.array_equal(tags[_COUNTS], expected):
        return None
    return PlainImage(height, width, order, strip_rows, tags[_OFFSETS].reshape(bands, -1))


def _tags(head: bytes) -> dict[int, NDArray[np.int64]]:
    """Return the values of the first directory's integer tags."""
    order = _ORDERS[head[:4]]
    return {
        tag: np.frombuffer(head, f"{order}{_TYPES[kind]}", count, at).astype(np.int64)
        for tag, kind, count, at in _entries(head)
        if kind in _TYPES
    }


def _directory_end(head: bytes) -> int:
    """Return where the last value of the first directory ends [byte]; 0 if that is not told."""
    try:
        return max((at + count * _SIZES[kind] for _, kind, count, at in _entries(head)), default=0)
    except (struct.error, KeyError):
        return 0


def _entries(head: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, number of values and place [byte] of the first directory's entries."""
    order = _ORDERS[head[:4]]
    (start,) = struct.unpack_from(f"{order}I", head, 4)
    (entries,) = struct.unpack_from(f"{order}H", head, start)
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", head, entry)
        at = entry + 8
        if count * _SIZES.get(kind, 8) > 4:
            (at,) = struct.unpack_from(f"{order}I", head, at)
        yield tag, kind, count, at
