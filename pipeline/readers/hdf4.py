"""HDF4 data sets as lazy arrays (band, y, x), read by place: GDAL's wheels read no HDF4."""

import bisect
import os
import struct
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import IO, Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from pipeline.readers.hdf4_layout import DataSet, HdfError, data_sets
from pipeline.readers.indexing import Key, covering_box
from pipeline.readers.product import Member, Product
from pipeline.readers.raster import chunk_rows
from storage.schema import SceneError


class HdfFile:
    """An open HDF4 file of a product, closed when nothing refers to it any more.

    Out of a zip or tgz it is read from a temporary file without a name. It travels to other
    processes as the product's path alone and is opened there again.

    Args:
        product: Where it is.
        member: Which file.
        opened: What `Product.files` gave for it, if it is open already.
    """

    def __init__(
        self, product: Product, member: Member, opened: tuple[IO[bytes], int] | None = None
    ) -> None:
        self.product = product
        self.member = member
        self.where = product.where(member)
        self._file, start = opened or product.files([member])[member.name]
        self._start = start
        weakref.finalize(self, self._file.close)
        with _errors(self.where):
            self.data_sets: Mapping[str, DataSet] = data_sets(self._file, start, member.size)

    def __reduce__(self) -> tuple[object, ...]:
        return HdfFile, (self.product, self.member)

    def __dask_tokenize__(self) -> object:
        path = self.product.path
        return str(path), path.stat().st_mtime_ns, self.member.name, self.member.size

    def read(self, name: str, first: int, end: int) -> NDArray[Any]:
        """Return rows `first` to `end` of data set `name`, in this machine's byte order.

        Raises:
            SceneError: They are not in the file.
        """
        found = self.data_sets[name]
        dtype = np.dtype(found.dtype)
        row = prod(found.shape[1:]) * dtype.itemsize
        data = np.empty((end - first) * row, np.uint8)
        with _errors(self.where):
            self._read_into(memoryview(data), found, first * row)
        values = data.view(dtype).reshape(end - first, *found.shape[1:])
        return values.astype(dtype.newbyteorder("="), copy=False)

    def _read_into(self, out: memoryview, found: DataSet, begin: int) -> None:
        ends = list(accumulate(size for _, size in found.pieces))
        done = 0
        while done < len(out):
            piece = bisect.bisect_right(ends, begin + done)
            offset, size = found.pieces[piece]
            inside = begin + done - (ends[piece] - size)
            length = min(size - inside, len(out) - done)
            if offset < 0:
                raise HdfError("a block that was never written")
            part = out[done : done + length]
            if (got := os.preadv(self._file.fileno(), [part], self._start + offset + inside)) == 0:
                raise HdfError(f"the end at byte {offset + inside}")
            done += got


def open_hdf(product: Product, members: Iterable[Member]) -> list[HdfFile]:
    """Return HDF4 files of a product, read out of an archive in one pass.

    Raises:
        SceneError: One is damaged.
    """
    members = list(members)
    with ExitStack() as opened:
        files = product.files(members)
        for file, _ in files.values():
            opened.enter_context(file)
        found = [HdfFile(product, member, files[member.name]) for member in members]
        opened.pop_all()
        return found


@dataclass(frozen=True)
class HdfCube:
    """A band-interleaved data set (line, band, sample), seen as (band, y, x)."""

    file: HdfFile
    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    ndim: int = 3

    def __getitem__(self, key: Key) -> NDArray[Any]:
        spans, inside = covering_box(key, self.shape)
        (b0, b1), (y0, y1), (x0, x1) = spans
        if not (b0 < b1 and y0 < y1 and x0 < x1):
            return np.empty([stop - start for start, stop in spans], self.dtype)[inside]
        lines = self.file.read(self.name, y0, y1)
        return lines[:, b0:b1, x0:x1].transpose(1, 0, 2)[inside]


def lazy_cube(file: HdfFile, name: str) -> da.Array:
    """Return data set `name` (line, band, sample) as a lazy array (band, y, x).

    Chunks: all bands, a multiple of 64 rows, all columns.
    """
    found = file.data_sets[name]
    lines, bands, samples = found.shape
    dtype = np.dtype(found.dtype).newbyteorder("=")
    cube = HdfCube(file, name, (bands, lines, samples), dtype)
    rows = chunk_rows(bands, samples)
    array: da.Array = da.from_array(cube, chunks=(bands, rows, samples), asarray=False, fancy=False)
    return array


@contextmanager
def _errors(where: str) -> Iterator[None]:
    try:
        yield
    except (HdfError, struct.error) as error:
        raise SceneError(
            where, expected="a whole HDF4 file", got=f"{error}",
            todo="the file is damaged or cut short: fetch the product again",
        ) from error  # fmt: skip
