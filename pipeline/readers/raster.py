"""GeoTIFFs as one lazy array (band, y, x), read a strip of rows at a time by GDAL."""

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import dask.array as da
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from pipeline.readers.indexing import Key, covering_box
from pipeline.readers.inflate import Inflated, MemberStreams, Plain
from pipeline.readers.product import Member, Product
from pipeline.readers.tiff import HEAD_BYTES, PlainImage, plain_image
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
    # By default 5 % of the machine's memory, whatever else is to fit in.
    "GDAL_CACHEMAX": 64 * 2**20,
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


class PlainBands:
    """Reads bands whose pixels lie in their files as they are, all cores at once.

    Out of a zip each band is unpacked as its rows go by, once, and its checksum verified at the
    end; GDAL's own way through a zip took 2.4 times as long and verifies nothing.

    Args:
        product: Where the files are.
        shape: Rows and columns that each must have.
        dtype: Of the pixels.
    """

    def __init__(self, product: Product, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._streams = MemberStreams(product)
        self._shape, self._dtype = shape, dtype
        self._bands: dict[Member, tuple[Inflated | Plain, PlainImage] | None] = {}
        self._verified: set[Member] = set()
        self._lock = threading.Lock()

    def has(self, member: Member) -> bool:
        """Say whether a file can be read so; looks at its first bytes, once."""
        with self._lock:
            if member not in self._bands:
                self._bands[member] = self._look(member)
            return self._bands[member] is not None

    def verify(self, members: Iterable[Member] | None = None) -> None:
        """Read on to the end of what was opened, or of `members`, where checksums are compared.

        Raises:
            SceneError: A member is not what its checksum is of.
        """
        with self._lock:
            if members is None:
                streams = [found[0] for found in self._bands.values() if found is not None]
            else:
                new = [member for member in members if member not in self._verified]
                self._verified.update(new)
                streams = [s for s in map(self._streams.open, new) if s is not None]
        list(_pool().map(lambda stream: stream.finish(), streams))

    def read(self, wanted: dict[Member, NDArray[Any]], rows: tuple[int, int], cols: slice) -> None:
        """Fill one array (y, x) a file with the window of rows (first, end) and columns.

        Raises:
            SceneError: A file is shorter or damaged.
        """
        items, pool = list(wanted.items()), _pool()
        threads = len(os.sched_getaffinity(0))

        def some(first: int) -> None:
            for member, out in items[first::threads]:
                self._read(member, out, rows, cols)

        list(pool.map(some, range(threads)))

    def _look(self, member: Member) -> tuple[Inflated | Plain, PlainImage] | None:
        stream = self._streams.open(member)
        if stream is None:
            return None
        image = plain_image(stream.read(0, min(HEAD_BYTES, member.size)))
        fits = image is not None and (image.height, image.width) == self._shape
        return (stream, image) if fits and image is not None else None

    def _read(self, member: Member, out: NDArray[Any], rows: tuple[int, int], cols: slice) -> None:
        found = self._bands[member]
        assert found is not None  # noqa: S101  (`has` was asked)
        stream, image = found
        dtype, row = self._dtype.newbyteorder(image.byte_order), 0
        for content in (stream.read(*span) for span in image.spans(*rows)):
            pixels = np.frombuffer(content, dtype).reshape(-1, image.width)
            out[row : row + len(pixels)] = pixels[:, cols]
            row += len(pixels)
        if rows[1] == image.height:
            stream.finish()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode")


@dataclass(frozen=True)
class RasterStack:
    """GeoTIFFs of one grid, stacked on band, as an array that Dask reads a window of at a time.

    One-band files that are not compressed in themselves are read by `PlainBands`, other files one
    by one by GDAL in the product's order, each closed again, so that its block cache and the
    handles stay bounded. Then a zip's member is unpacked up to the window's last row, a tgz of
    small files up to its last file, a tgz of large ones some times over: hence the larger chunks
    there. Unpack a tgz beforehand where that matters.
    """

    product: Product
    members: tuple[Member, ...]
    """Equally many bands each."""
    shape: tuple[int, int, int]
    """(band, y, x)."""
    dtype: np.dtype[Any]
    ndim: int = 3

    @cached_property
    def plain(self) -> PlainBands:
        """What reads files without GDAL; each process opens its own."""
        return PlainBands(self.product, self.shape[1:], self.dtype)

    def __reduce__(self) -> tuple[object, ...]:
        return RasterStack, (self.product, self.members, self.shape, self.dtype)

    def __dask_tokenize__(self) -> object:
        files = [(m.name, m.size) for m in self.members]
        return str(self.product.path), self.product.path.stat().st_mtime_ns, files, self.shape

    def __getitem__(self, key: Key) -> NDArray[Any]:
        spans, inside = covering_box(key, self.shape)
        (first, last), (y0, y1), (x0, x1) = spans
        out = np.empty([stop - start for start, stop in spans], self.dtype)
        if out.size == 0:
            return out[inside]
        each = self.shape[0] // len(self.members)
        parts: dict[Member, tuple[list[int], NDArray[Any]]] = {}
        for i, member in enumerate(self.members):
            low, high = max(first, i * each), min(last, (i + 1) * each)
            if low < high:
                bands = [band - i * each + 1 for band in range(low, high)]
                parts[member] = bands, out[low - first : high - first]
        plain = {m: image[0] for m, (_, image) in parts.items() if each == 1 and self.plain.has(m)}
        if plain:
            self.plain.read(plain, (y0, y1), slice(x0, x1))
        other = {member: part for member, part in parts.items() if member not in plain}
        if other and self.product.kind == "zip":
            self.plain.verify(other)  # GDAL compares no checksum
        window = Window(x0, y0, x1 - x0, y1 - y0)
        with rasterio.Env(**_GDAL):
            for member, opened in _each(self.product, other):
                _read(self.product.where(member), opened, window, *other[member])
        return out[inside]

    def take(self, bands: Sequence[int]) -> "RasterStack":
        """Return the stack of some bands alone (0-based); only of one-band files.

        Raises:
            ValueError: Files have several bands.
        """
        if len(self.members) != self.shape[0]:
            raise ValueError("bands can be taken from one-band files alone")
        members = tuple(self.members[band] for band in bands)
        some = RasterStack(self.product, members, (len(members), *self.shape[1:]), self.dtype)
        some.__dict__["plain"] = self.plain  # what reads the bands is shared, and can verify all
        return some

    def lazy(self) -> da.Array:
        """Return the stack as a lazy array (band, y, x); nothing is read before it is computed.

        Chunks: all bands, a multiple of 64 rows, all columns.
        """
        bands, _, cols = self.shape
        rows = chunk_rows(bands, cols, packed=self.product.kind == "tgz")
        array: da.Array = da.from_array(self, (bands, rows, cols), asarray=False, fancy=False)
        return array


def read_headers(product: Product, members: Iterable[Member]) -> list[Header]:
    """Return what GeoTIFFs say of themselves, after a look whether all of each is there.

    Raises:
        SceneError: One is no GeoTIFF, or its last block lies beyond the file's end.
    """
    members = list(members)
    like = _like_the_first(product, members)
    wanted = [member for member in members if member not in like]

    def header(member: Member, opened: Open) -> Header:
        with rasterio.Env(**_GDAL):  # one for each thread
            return _read_header(product.where(member), opened, member.size)

    if product.kind in ("zip", "folder"):
        found = dict(_pool().map(lambda item: (item[0], header(*item)), _each(product, wanted)))
    else:
        found = {member: header(member, opened) for member, opened in _each(product, wanted)}
    return [found.get(member) or found[members[0]] for member in members]


def _like_the_first(product: Product, members: list[Member]) -> set[Member]:
    """Return the files that begin, byte by byte up to their pixels, as the first one does.

    To open each of hundreds of files by GDAL, only to hear the same again, takes a second.
    """
    streams = MemberStreams(product)

    def head(member: Member) -> bytes | None:
        stream = streams.open(member)
        return None if stream is None else stream.read(0, min(HEAD_BYTES, member.size))

    first, *others = members
    start = head(first)
    image = None if start is None else plain_image(start)
    if start is None or image is None:
        return set()
    size, begin = first.size, int(image.offsets.min())
    alike = [member for member in others if member.size == size]
    heads = zip(alike, _pool().map(head, alike), strict=True)
    return {member for member, other in heads if other and other[:begin] == start[:begin]}


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
    if not wanted:
        return
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
