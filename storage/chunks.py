"""A scene's lazy tiles, computed chunk by chunk."""

import itertools
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

BATCH_TILES = 64
AHEAD_BYTES = 64 * 2**20
"""Of chunks up to this size two are computed at a time, of larger ones one."""


def computed(tiles: "xr.Dataset") -> "Iterator[xr.Dataset]":
    """Yield the chunks of tiles, computed; of small ones the next is on its way meanwhile.

    Each by one thread: reading and encoding have threads of their own.
    """

    def compute(part: slice) -> "xr.Dataset":
        return tiles.isel(tile=part).compute(scheduler="synchronous")

    largest = max(tiles.tiles.chunksizes.get("tile", (BATCH_TILES,)), default=0)
    size = largest * math.prod(tiles.tiles.shape[1:]) * tiles.tiles.dtype.itemsize
    ahead = 2 if size <= AHEAD_BYTES else 1
    with ThreadPoolExecutor(ahead, "compute") as pool:
        coming: deque[Future[xr.Dataset]] = deque()
        for part in _chunks(tiles):
            coming.append(pool.submit(compute, part))
            if len(coming) > ahead - 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _chunks(tiles: "xr.Dataset") -> Iterator[slice]:
    """Yield the runs of tiles that are one Dask chunk; of plain NumPy 64 tiles."""
    count = tiles.sizes["tile"]
    sizes = tiles.tiles.chunksizes.get("tile")
    if sizes is None:
        yield from (slice(start, start + BATCH_TILES) for start in range(0, count, BATCH_TILES))
        return
    ends = np.cumsum([0, *sizes]).tolist()
    yield from (slice(a, b) for a, b in itertools.pairwise(ends) if b > a)
