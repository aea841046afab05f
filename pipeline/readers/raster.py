"""GeoTIFFs as one lazy array (band, y, x), read a strip of rows at a time by GDAL."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from pipeline.readers.indexing import Key, covering_box
from pipeline.readers.product import Member, Product
from storage.schema import TILE_SIZE, SceneError

_CHUNK_BYTES = 64 * 2**20
"""Aim of a chunk: all bands of some rows, whatever the scene's length."""
_TGZ_CHUNK_BYTES = 192 * 2**20
"""The same in a tgz, where the way to each chunk leads through up to all of the archive."""
_SMALL = 32 * 2**20
"""Largest file [byte] out of a tgz that is held in memory: a Hyperion band of 14,000 rows."""
_GDAL = {
    # Or GDAL writes `<archive>.properties` beside a tgz.
    "CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO",
    # No other file changes what a GeoTIFF says; nor is the folder listed for each band.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
}

type Open = Callable[[], Any]

# Sensor geometry has none, and says so for each file that is opened; per-thread filters do not
# exist before Python 3.14.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@dataclass(frozen=True)
class Header:
    """What one GeoTIFF says of itself."""

    shape: tuple[int, int, int]
    """(band, y, x)."""
    dtype: str
    crs: str | None
    transform: tuple[float, ...]
    """Affine coefficients a, b, c, d, e, f: x = a col + b row + c, y = d col + e row + f."""


@dataclass(frozen=True)
class RasterStack:
    """GeoTIFFs of one grid, stacked on band, as an array that Dask reads a window of at a time.

    A read opens the files one by one in the product's order and closes each, so that GDAL's block
    cache and the file handles stay bounded. A zip's member is unpacked up to the window's last
    row, a tgz of small files up to its last file, a tgz of large ones some times over: hence the
    larger chunks there. Unpack a tgz beforehand where that matters.
    """

    product: Product
    members: tuple[Member, ...]
    """Equally many bands each."""
    shape: tuple[int, int, int]
    """(band, y, x)."""
    dtype: np.dtype[Any]
    ndim: int = 3

    def __dask_tokenize__(self) -> object:
        files = [(m.name, m.size) for m in self.members]
        return str(self.product.path), self.product.path.stat().st_mtime_ns, files, self.shape

    def __getitem__(self, key: Key) -> NDArray[Any]:
        spans, inside = covering_box(key, self.shape)
        (first, last), (y0, y1), (x0, x1) = spans
        out = np.empty([stop - start for start, stop in spans], self.dtype)
        if out.size == 0:
            return out[inside]
        window = Window(x0, y0, x1 - x0, y1 - y0)
        each = self.shape[0] // len(self.members)
        parts = {}
        for i, member in enumerate(self.members):
            low, high = max(first, i * each), min(last, (i + 1) * each)
            if low < high:
                bands = [band - i * each + 1 for band in range(low, high)]
                parts[member] = bands, out[low - first : high - first]
        with rasterio.Env(**_GDAL):
            for member, opened in _each(self.product, parts):
                _read(self.product.where(member), opened, window, *parts[member])
        return out[inside]


def read_headers(product: Product, members: Iterable[Member]) -> list[Header]:
    """Return what GeoTIFFs say of themselves, after a look whether all of each is there.

    Raises:
        SceneError: One is no GeoTIFF, or its last block lies beyond the file's end.
    """
    members = list(members)
    with rasterio.Env(**_GDAL):
        found = {m: _read_header(product.where(m), o, m.size) for m, o in _each(product, members)}
    return [found[member] for member in members]


def lazy_stack(
    product: Product, members: Sequence[Member], shape: tuple[int, int, int], dtype: str, rows: int
) -> da.Array:
    """Return GeoTIFFs of one grid, equally many bands each, as a lazy array (band, y, x).

    Chunks: all bands, `rows`, all columns; nothing is read before it is computed.
    """
    stack = RasterStack(product, tuple(members), shape, np.dtype(dtype))
    chunks = (shape[0], rows, shape[2])
    array: da.Array = da.from_array(stack, chunks=chunks, asarray=False, fancy=False)
    return array


def chunk_rows(bands: int, cols: int, *, packed: bool = False) -> int:
    """Return how many rows of all bands make a chunk: a multiple of 64, however long the scene.

    `packed`: the pixels are in a tgz; DN have 2 byte each.
    """
    aim = _TGZ_CHUNK_BYTES if packed else _CHUNK_BYTES
    return TILE_SIZE * max(1, aim // (bands * cols * 2 * TILE_SIZE))


def _each(product: Product, members: Iterable[Member]) -> Iterator[tuple[Member, Open]]:
    """Yield files in the product's order, each with what opens it."""
    wanted = {member.name: member for member in members}
    if product.kind == "tgz" and max(member.size for member in wanted.values()) <= _SMALL:
        # GDAL goes back to a tgz's start, or near it, for each file's directory and pixels: one
        # pass with each file in memory in turn took less than half the time.
        for name, content in product.stream(wanted.values()):
            with MemoryFile(content) as file:
                yield wanted[name], partial(file.open, driver="GTiff")
        return
    for member in product.members:
        if member.name in wanted:
            yield member, partial(rasterio.open, product.gdal_path(member), driver="GTiff")


def _read_header(where: str, opened: Open, size: int) -> Header:
    try:
        with opened() as source:
            _check_end(where, source, size)
            return Header(
                (source.count, source.height, source.width),
                source.dtypes[0],
                None if source.crs is None else source.crs.to_string(),
                tuple(source.transform)[:6],
            )
    except RasterioError as error:
        raise _damaged(where, error) from error


def _read(where: str, opened: Open, window: Window, bands: list[int], out: NDArray[Any]) -> None:
    try:
        with opened() as source:
            source.read(bands, window=window, out=out)
            _check_blocks(where, source, bands, window, out)
    except RasterioError as error:
        raise _damaged(where, error) from error


def _check_end(where: str, source: Any, size: int) -> None:
    """Refuse a file whose last blocks would lie beyond its end."""
    height, width = source.block_shapes[0]
    block = f"{(source.width - 1) // width}_{(source.height - 1) // height}"
    for band in source.indexes:
        start, length = _block(source, block, band)
        if length == 0 or start + length > size:
            raise SceneError(
                where, expected=f"band {band}'s last block at bytes {start} to {start + length}",
                got=f"a file of {size} bytes", todo=_FETCH_AGAIN,
            )  # fmt: skip


def _check_blocks(
    where: str, source: Any, bands: list[int], window: Window, out: NDArray[Any]
) -> None:
    """Refuse blocks that are not in the file, which GDAL gives as zeros without a word."""
    height, width = source.block_shapes[0]
    rows = range(window.row_off // height, (window.row_off + window.height - 1) // height + 1)
    cols = range(window.col_off // width, (window.col_off + window.width - 1) // width + 1)
    for band, pixels in zip(bands, out, strict=True):
        empty = ~pixels.any(axis=1)
        for row in rows:
            start = max(row * height - window.row_off, 0)
            if not empty[start : (row + 1) * height - window.row_off].any():
                continue
            for col in cols:
                if _block(source, f"{col}_{row}", band)[1] == 0:
                    raise SceneError(
                        where, expected=f"pixels in block {col}, {row} of band {band}",
                        got="a block that was never written", todo=_FETCH_AGAIN,
                    )  # fmt: skip


def _block(source: Any, block: str, band: int) -> tuple[int, int]:
    """Return offset and length [byte] of a block in its file; 0, 0 if it is not there."""
    start, length = (
        source.get_tag_item(f"BLOCK_{what}_{block}", "TIFF", bidx=band)
        for what in ("OFFSET", "SIZE")
    )
    return int(start or 0), int(length or 0)


_FETCH_AGAIN = "the file is damaged or cut short: fetch the product again"


def _damaged(where: str, error: Exception) -> SceneError:
    cause = error.__cause__ or error
    return SceneError(
        where, expected="a whole GeoTIFF", got=" ".join(str(cause).split()), todo=_FETCH_AGAIN
    )
