"""HDF4 data sets as lazy arrays (band, y, x), through pyhdf: GDAL's wheels read no HDF4."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from pyhdf.error import HDF4Error
from pyhdf.SD import SD, SDC

from pipeline.readers.indexing import Key, covering_box
from pipeline.readers.product import Member, Product
from pipeline.readers.raster import chunk_rows
from storage.schema import SceneError

DTYPES = {SDC.INT16: "int16", SDC.UINT16: "uint16", SDC.UINT8: "uint8", SDC.INT8: "int8",
          SDC.FLOAT32: "float32", SDC.FLOAT64: "float64", SDC.INT32: "int32"}  # fmt: skip
_LOCK = threading.RLock()
"""The HDF4 library keeps its state in globals. Reentrant: a collected file is closed anywhere."""


class HdfFile:
    """An open HDF4 file of a product, closed when nothing refers to it any more.

    Out of an archive it is read from a temporary file without a name. It travels to other
    processes as the product's path alone and is opened there again.

    Args:
        product: Where it is.
        member: Which file.
        content: The archive member's content, if it was copied out already.
    """

    def __init__(self, product: Product, member: Member, content: IO[bytes] | None = None) -> None:
        self.product = product
        self.member = member
        self.where = product.where(member)
        self._content: IO[bytes] | None
        if product.kind == "folder":
            self._content = None
            path = str(product.path / member.name)
        else:
            self._content = content or product.spool([member])[member.name]
            path = f"/dev/fd/{self._content.fileno()}"
        with _errors(self.where):
            self._file: Any = SD(path)
            # HDF4 first: it knows files by name, and would take the next owner of this
            # descriptor's name for this very file.
            weakref.finalize(self, _close, self._file, self._content)
            self.datasets = {
                name: (tuple(shape), DTYPES.get(kind, f"HDF4 type {kind}"))
                for name, (_, shape, kind, _) in self._file.datasets().items()
            }

    def __reduce__(self) -> tuple[object, ...]:
        return HdfFile, (self.product, self.member)

    def __dask_tokenize__(self) -> object:
        path = self.product.path
        return str(path), path.stat().st_mtime_ns, self.member.name, self.member.size

    def read(self, name: str, start: tuple[int, ...], count: tuple[int, ...]) -> NDArray[Any]:
        """Return `count` values along each axis of data set `name`, from `start` on.

        Raises:
            SceneError: They are not in the file.
        """
        with _errors(self.where):
            data = self._file.select(name)
            values = np.asarray(data.get(start, count, (1,) * len(start)))
            data.endaccess()
            return values.reshape(count)


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
        count = (y1 - y0, b1 - b0, x1 - x0)
        return self.file.read(self.name, (y0, b0, x0), count).transpose(1, 0, 2)[inside]


def lazy_cube(file: HdfFile, name: str) -> da.Array:
    """Return data set `name` (line, band, sample) as a lazy array (band, y, x).

    Reads the last line now, so that a file cut short is found at once.
    Chunks: all bands, a multiple of 64 rows, all columns.

    Raises:
        SceneError: The last line is not in the file.
    """
    (lines, bands, samples), dtype = file.datasets[name]
    file.read(name, (lines - 1, 0, 0), (1, bands, samples))
    cube = HdfCube(file, name, (bands, lines, samples), np.dtype(dtype))
    rows = chunk_rows(bands, samples)
    array: da.Array = da.from_array(cube, chunks=(bands, rows, samples), asarray=False, fancy=False)
    return array


def _close(file: Any, content: IO[bytes] | None) -> None:
    with _LOCK:
        file.end()
    if content is not None:
        content.close()


@contextmanager
def _errors(where: str) -> Iterator[None]:
    try:
        with _LOCK:
            yield
    except (HDF4Error, ValueError) as error:
        raise SceneError(
            where, expected="a whole HDF4 file", got=f"{error}",
            todo="the file is damaged or cut short: fetch the product again",
        ) from error  # fmt: skip
