"""GeoTIFFs opened by GDAL: what they say of themselves, and their pixels."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from pipeline.readers.inflate import MemberStreams
from pipeline.readers.plain import cores
from pipeline.readers.product import Member, Product
from pipeline.readers.tiff import has_directory, plain_image, read_head
from storage.schema import SceneError

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
type Run = tuple[list[int], NDArray[Any]]
"""Bands of a file (1-based), and what they are read into (band, y, x)."""

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

    found = dict(_by_heads(product, wanted, header)) if product.kind == "tgz" else {}
    wanted = [member for member in wanted if member not in found]
    if product.kind in ("zip", "folder"):
        found = dict(cores().map(lambda item: (item[0], header(*item)), _each(product, wanted)))
    else:
        found |= {member: header(member, opened) for member, opened in _each(product, wanted)}
    return [found.get(member) or found[members[0]] for member in members]


def read_bands(
    product: Product,
    wanted: Mapping[Member, list[Run]],
    rows: tuple[int, int],
    cols: tuple[int, int],
) -> None:
    """Read rows and columns (start, stop) of bands, file by file in the product's order.

    Raises:
        SceneError: A file is damaged, or a block was never written.
    """
    window = Window(cols[0], rows[0], cols[1] - cols[0], rows[1] - rows[0])
    with rasterio.Env(**_GDAL):
        for member, opened in _each(product, wanted):
            _read(product.where(member), opened, window, wanted[member])


def _by_heads(
    product: Product, members: list[Member], header: Callable[[Member, Open], Header]
) -> Iterator[tuple[Member, Header]]:
    """Yield the headers of plain files out of their first bytes alone.

    GDAL would unpack a tgz up to each file.
    """
    streams = MemberStreams(product)
    for member in members:
        if (stream := streams.open(member)) is None:
            continue
        head = read_head(stream.read, member.size)
        if has_directory(head) and plain_image(head) is not None:
            with MemoryFile(head) as file:
                yield member, header(member, partial(file.open, driver="GTiff"))


def _like_the_first(product: Product, members: list[Member]) -> set[Member]:
    """Return the files that begin, byte by byte up to their pixels, as the first one does.

    To open each of hundreds of files by GDAL, only to hear the same again, takes a second.
    """
    streams = MemberStreams(product)

    def head(member: Member) -> bytes | None:
        stream = streams.open(member)
        return None if stream is None else read_head(stream.read, member.size)

    first, *others = members
    start = head(first)
    image = None if start is None else plain_image(start)
    if start is None or image is None:
        return set()
    size, begin = first.size, int(image.offsets.min())
    alike = [member for member in others if member.size == size]
    heads = zip(alike, cores().map(head, alike), strict=True)
    return {member for member, other in heads if other and other[:begin] == start[:begin]}


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


def _read(where: str, opened: Open, window: Window, runs: list[Run]) -> None:
    try:
        with opened() as source:
            for bands, out in runs:
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
