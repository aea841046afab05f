"""Bands whose pixels lie in their files as they are, read without GDAL."""

import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.readers.inflate import Inflated, MemberStreams, Plain, Stream
from pipeline.readers.product import Member, Product
from pipeline.readers.tiff import PlainImage, plain_image, read_head

type Place = tuple[Member, int]
"""A file, and which band in it (0-based)."""


class PlainBands:
    """Reads bands whose pixels lie in their files as they are, all cores at once.

    Out of a zip each band is unpacked as its rows go by, once, and its checksum verified at the
    end; GDAL's own way through a zip took 2.4 times as long and verifies nothing. Out of a tgz
    each band has its own place to go on from, also where all lie in one file.

    Args:
        product: Where the files are.
        shape: Bands, rows and columns that each file must have.
        dtype: Of the pixels.
    """

    def __init__(self, product: Product, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self._streams = MemberStreams(product)
        self._shape, self._dtype = shape, dtype
        self._images: dict[Member, PlainImage | None] = {}
        self._opened: dict[Place, Stream] = {}
        self._verified: set[Member] = set()
        self._lock = threading.Lock()

    def has(self, member: Member) -> bool:
        """Say whether a file can be read so; looks at its first bytes, once."""
        with self._lock:
            if member not in self._images:
                self._images[member] = self._look(member)
            return self._images[member] is not None

    def verify(self, members: Iterable[Member] | None = None) -> None:
        """Read on to the end of what was opened, or of `members`, where checksums are compared.

        Raises:
            SceneError: A member is not what its checksum is of.
        """
        with self._lock:
            if members is None:
                streams = list(self._opened.values())
            else:
                new = [member for member in members if member not in self._verified]
                self._verified.update(new)
                streams = [s for s in map(self._streams.open, new) if s is not None]
        list(cores().map(lambda stream: stream.finish(), streams))

    def read(
        self, wanted: Sequence[tuple[Place, NDArray[Any]]], rows: tuple[int, int], cols: slice
    ) -> None:
        """Fill one array (y, x) a band with the window of rows (first, end) and columns.

        Raises:
            SceneError: A file is shorter or damaged.
        """
        threads = len(os.sched_getaffinity(0))

        def some(first: int) -> None:
            for place, out in wanted[first::threads]:
                self._read(place, out, rows, cols)

        list(cores().map(some, range(threads)))

    def _look(self, member: Member) -> PlainImage | None:
        stream = self._streams.open(member)
        if stream is None:
            return None
        image = plain_image(read_head(stream.read, member.size))
        if image is None or (image.bands, image.height, image.width) != self._shape:
            return None
        if image.bands > 1 and isinstance(stream, Inflated):
            return None  # each band would unpack all before it
        if image.bands > 1:
            stream.finish()  # a zip's stored file: nobody may come to the end of its last band
        # Of a zip's member the checksum goes on from what was looked at.
        self._opened[member, 0] = stream
        return image

    def _stream(self, place: Place) -> Stream:
        with self._lock:
            if place not in self._opened:
                first = self._opened[place[0], 0]
                opened = first if isinstance(first, Plain) else self._streams.open(place[0])
                assert opened is not None  # noqa: S101  (`_look` opened it once)
                self._opened[place] = opened
            return self._opened[place]

    def _read(self, place: Place, out: NDArray[Any], rows: tuple[int, int], cols: slice) -> None:
        image, stream = self._images[place[0]], self._stream(place)
        assert image is not None  # noqa: S101  (`has` was asked)
        dtype, row = self._dtype.newbyteorder(image.byte_order), 0
        for content in (stream.read(*span) for span in image.spans(*rows, place[1])):
            pixels = np.frombuffer(content, dtype).reshape(-1, image.width)
            out[row : row + len(pixels)] = pixels[:, cols]
            row += len(pixels)
        if rows[1] == image.height:
            stream.finish()


@cache
def cores() -> ThreadPoolExecutor:
    """Return the threads that unpack and decode, one a core."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode")
