"""GeoTIFFs as one lazy array (band, y, x), read a strip of rows at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from pipeline.readers.gdal import Run, read_bands
from pipeline.readers.indexing import Key, covering_box
from pipeline.readers.plain import Place, PlainBands
from pipeline.readers.product import Member, Product
from storage.schema import TILE_SIZE

_CHUNK_BYTES = 64 * 2**20
"""Aim of a chunk: all bands of some rows, whatever the scene's length."""
_TGZ_CHUNK_BYTES = 192 * 2**20
"""The same in a tgz, where the way to each chunk leads through up to all of the archive."""


@dataclass(frozen=True)
class RasterStack:
    """Bands of GeoTIFFs of one grid, as an array that Dask reads a window of at a time.

    Files that are not compressed in themselves are read by `PlainBands`, other files one by one
    by GDAL in the product's order, each closed again, so that its block cache and the handles
    stay bounded. Then a zip's member is unpacked up to the window's last row, a tgz of small files
    up to its last file, a tgz of large ones some times over: hence the larger chunks there.
    Unpack such a tgz beforehand where that matters.
    """

    product: Product
    places: tuple[Place, ...]
    """Of each band; equally many bands in each file."""
    each: int
    """Bands in a file."""
    grid: tuple[int, int]
    """(y, x)."""
    dtype: np.dtype[Any]
    ndim: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """(band, y, x)."""
        return len(self.places), *self.grid

    @cached_property
    def plain(self) -> PlainBands:
        """What reads files without GDAL; each process opens its own."""
        return PlainBands(self.product, (self.each, *self.grid), self.dtype)

    def __reduce__(self) -> tuple[object, ...]:
        return RasterStack, (self.product, self.places, self.each, self.grid, self.dtype)

    def __dask_tokenize__(self) -> object:
        places = [(m.name, m.size, band) for m, band in self.places]
        return str(self.product.path), self.product.path.stat().st_mtime_ns, places, self.shape

    def __getitem__(self, key: Key) -> NDArray[Any]:
        spans, inside = covering_box(key, self.shape)
        (first, last), (y0, y1), (x0, x1) = spans
        out = np.empty([stop - start for start, stop in spans], self.dtype)
        if out.size == 0:
            return out[inside]
        wanted = list(zip(self.places[first:last], out, strict=True))
        plain = [item for item in wanted if self.plain.has(item[0][0])]
        if plain:
            self.plain.read(plain, (y0, y1), slice(x0, x1))
        if len(plain) < len(wanted):
            other = _runs(self.places[first:last], out, self.plain)
            if self.product.kind == "zip":
                self.plain.verify(other)  # GDAL compares no checksum
            read_bands(self.product, other, (y0, y1), (x0, x1))
        return out[inside]

    def take(self, bands: Sequence[int]) -> "RasterStack":
        """Return the stack of some bands alone (0-based)."""
        places = tuple(self.places[band] for band in bands)
        some = RasterStack(self.product, places, self.each, self.grid, self.dtype)
        some.__dict__["plain"] = self.plain  # what reads the bands is shared, and can verify all
        return some

    def rows(self, bands: int | None = None) -> int:
        """Return how many rows make a chunk of `bands`, by default the stack's."""
        by_gdal = self.product.kind == "tgz" and not self.plain.has(self.places[0][0])
        return chunk_rows(bands or self.shape[0], self.shape[2], packed=by_gdal)

    def lazy(self, rows: int | None = None) -> da.Array:
        """Return the stack as a lazy array (band, y, x); nothing is read before it is computed.

        Chunks: all bands, a multiple of 64 rows, all columns.
        """
        chunks = (self.shape[0], rows or self.rows(), self.shape[2])
        array: da.Array = da.from_array(self, chunks, asarray=False, fancy=False)
        return array


def raster_stack(
    product: Product, members: Sequence[Member], shape: tuple[int, int, int], dtype: str
) -> RasterStack:
    """Return all bands (band, y, x) of GeoTIFFs of one grid, equally many each."""
    each = shape[0] // len(members)
    places = tuple((member, band) for member in members for band in range(each))
    return RasterStack(product, places, each, shape[1:], np.dtype(dtype))


def chunk_rows(bands: int, cols: int, *, packed: bool = False) -> int:
    """Return how many rows of all bands make a chunk: a multiple of 64, however long the scene.

    `packed`: the pixels are in a tgz; DN have 2 byte each.
    """
    aim = _TGZ_CHUNK_BYTES if packed else _CHUNK_BYTES
    return TILE_SIZE * max(1, aim // (bands * cols * 2 * TILE_SIZE))


def _runs(places: Sequence[Place], out: NDArray[Any], plain: PlainBands) -> dict[Member, list[Run]]:
    """Return, of each file that `plain` has not, which bands (1-based) go to which part of `out`.

    `out` (band, y, x) is in the order of `places`.
    """
    runs: dict[Member, list[Run]] = {}
    row = 0
    for member, group in groupby(places, key=lambda place: place[0]):
        bands = [band + 1 for _, band in group]
        if not plain.has(member):
            runs.setdefault(member, []).append((bands, out[row : row + len(bands)]))
        row += len(bands)
    return runs
