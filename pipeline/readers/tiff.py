"""Where a plain GeoTIFF's pixels lie in its file, so that they can be read as they stream past."""

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

HEAD_BYTES = 2**16
"""A file's directory must lie within so many bytes of its start."""
_TYPES = {3: "H", 4: "I"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS = 256, 257, 258, 259, 273
_SAMPLES, _STRIP_ROWS, _COUNTS, _PREDICTOR, _TILE_WIDTH = 277, 278, 279, 317, 322


@dataclass(frozen=True)
class PlainImage:
    """Rows of 16-bit integers in strips that are not compressed."""

    height: int
    width: int
    byte_order: Literal["<", ">"]
    """`<` or `>`."""
    strip_rows: int
    offsets: NDArray[np.int64]
    """Of each strip's first pixel [byte]."""

    @cached_property
    def contiguous(self) -> bool:
        """Whether the strips follow one another without gaps."""
        step = 2 * self.strip_rows * self.width
        return bool((np.diff(self.offsets) == step).all())

    def spans(self, first: int, end: int) -> list[tuple[int, int]]:
        """Return offset and length [byte] of what holds rows `first` to `end`, in their order."""
        found: list[tuple[int, int]] = []
        if self.contiguous:
            return [(int(self.offsets[0]) + 2 * first * self.width, 2 * (end - first) * self.width)]
        row = first
        while row < end:
            strip, inside = divmod(row, self.strip_rows)
            rows = min(self.strip_rows - inside, end - row)
            offset, length = (
                int(self.offsets[strip]) + 2 * inside * self.width,
                2 * rows * self.width,
            )
            if found and sum(found[-1]) == offset:
                offset, length = found[-1][0], found.pop()[1] + length
            found.append((offset, length))
            row += rows
        return found


def plain_image(head: bytes) -> PlainImage | None:
    """Return where the pixels of a one-band TIFF lie, None if GDAL had better read them.

    None for BigTIFF, tiles, compression, several bands, and a directory that is not in `head`.

    Args:
        head: The file's first `HEAD_BYTES`, or all of it.

    Source: TIFF revision 6.0, sections 2, 3 and 8.
    """
    orders: dict[bytes, Literal["<", ">"]] = {b"II*\0": "<", b"MM\0*": ">"}
    order = orders.get(head[:4])
    if order is None:
        return None
    try:
        tags = _tags(head, order)
    except (struct.error, ValueError):
        return None
    needed = (_HEIGHT, _WIDTH, _BITS, _OFFSETS, _COUNTS)
    if _TILE_WIDTH in tags or any(not len(tags.get(tag, ())) for tag in needed):
        return None
    fixed = {_BITS: 16, _COMPRESSION: 1, _SAMPLES: 1, _PREDICTOR: 1}
    if any(tag in tags and tags[tag].tolist() != [value] for tag, value in fixed.items()):
        return None
    height, width = int(tags[_HEIGHT][0]), int(tags[_WIDTH][0])
    strip_rows = min(height, int(tags[_STRIP_ROWS][0]) if _STRIP_ROWS in tags else height)
    if not (strip_rows > 0 and width > 0):
        return None
    starts = np.arange(0, height, strip_rows)
    expected = 2 * width * np.minimum(strip_rows, height - starts)
    if not np.array_equal(tags[_COUNTS], expected) or tags[_OFFSETS].size != starts.size:
        return None
    return PlainImage(height, width, order, strip_rows, tags[_OFFSETS])


def _tags(head: bytes, order: str) -> dict[int, NDArray[np.int64]]:
    """Return the values of the first directory's integer tags."""
    (start,) = struct.unpack_from(f"{order}I", head, 4)
    (count,) = struct.unpack_from(f"{order}H", head, start)
    tags = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", head, entry)
        if kind not in _TYPES:
            continue
        dtype = np.dtype(f"{order}{_TYPES[kind]}")
        inline = length * dtype.itemsize <= 4
        at = entry + 8 if inline else struct.unpack_from(f"{order}I", head, entry + 8)[0]
        tags[tag] = np.frombuffer(head, dtype, length, at).astype(np.int64)
    return tags
