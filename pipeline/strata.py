"""Draws that give land, water and what has both about the same shares, in every neighbourhood.

The Earth is cut into cells of about 16 x 16 blocks. Within a cell the blocks of one class are
ranked by the draws that they would have without a mask, which spread them over the cell, and the
n of them get draws at even steps of 1/n. So the shares of a class in a cell are right to one block,
and nothing but the grid, the seed and the mask has a say.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.blocks import KM_PER_DEGREE, Floats, columns, draw
from pipeline.land import LandMask, is_land

CLASSES = ("unknown", "land", "water", "mixed")
"""Of a block: `unknown` if the mask says nothing of more than half of it."""
_MOSTLY = 0.9
"""Share of a block [1] that makes it land or water."""
_SIDE = 16
"""Blocks along a cell's side."""
_POINTS = 8
"""Along a block's side, at which the mask is looked up."""


def draws(row: Floats, col: Floats, mask: LandMask, *, block_km: float, seed: int) -> Floats:
    """Return a number in [0, 1) for each block, as `pipeline.blocks.draw` does without a mask.

    Args:
        row: Of blocks, as `pipeline.blocks.block_of` gives them.
        col: Likewise, of the same shape.
        mask: Where land is.
        block_km: Side of a block.
        seed: Of the draws.
    """
    found = np.empty(row.size)
    rows, cols = row.ravel(), col.ravel() % columns(row.ravel(), block_km)
    cells = np.stack([rows // _SIDE, _cell(rows, cols, block_km)], axis=1)
    each, which = np.unique(cells, axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(which.ravel()))[:-1]) if order.size else []
    for (band, cell), here in zip(each.tolist(), parts, strict=True):
        first, table = _table(mask, block_km, seed, int(band), int(cell))
        line = (rows[here] - band * _SIDE).astype(int)
        found[here] = table[line, (cols[here] - first[line]).astype(int)]
    return found.reshape(row.shape)


def classes(mask: LandMask, row: Floats, col: Floats, block_km: float) -> NDArray[np.int64]:
    """Return the place in `CLASSES` of blocks that are near one another (block)."""
    offset = (np.arange(_POINTS) + 0.5) / _POINTS
    count = columns(row, block_km)[:, None, None]
    lon = (col[:, None, None] + offset) / count * 360 - 180 + 0 * offset[:, None]
    lat = (row[:, None, None] + offset[:, None]) * (block_km / KM_PER_DEGREE) + 0 * offset
    land = is_land(mask, lon.ravel(), np.clip(lat.ravel(), -90, 90)).reshape(len(row), -1)
    known = np.isfinite(land)
    share = np.where(known, land, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.select([known.mean(axis=1) < 0.5, share > _MOSTLY, share < 1 - _MOSTLY], [0, 1, 2], 3)


def _cell(row: Floats, col: Floats, block_km: float) -> Floats:
    """Return which cell of its band of rows a block's middle lies in."""
    return np.floor((col + 0.5) / columns(row, block_km) * _cells(row // _SIDE, block_km))


def _cells(band: Floats, block_km: float) -> Floats:
    """Return how many cells a band of rows has, by its middle row."""
    return np.maximum(1, np.round(columns((band + 0.5) * _SIDE, block_km) / _SIDE))


@lru_cache(maxsize=1024)
def _table(
    mask: LandMask, block_km: float, seed: int, band: int, cell: int
) -> tuple[Floats, Floats]:
    """Return a cell's draws.

    Returns:
        The first column of each row, and the draws (row, column - first), NaN beyond the cell.
    """
    lines = band * _SIDE + np.arange(_SIDE, dtype=float)
    count = columns(lines, block_km)
    cells = _cells(np.array(float(band)), block_km)
    first = np.maximum(np.floor(cell / cells * count) - 1, 0)
    col = first[:, None] + np.arange(np.ceil((count / cells).max()) + 3)
    row = np.broadcast_to(lines[:, None], col.shape)
    inside = (_cell(row, col, block_km) == cell) & (col < count[:, None])
    row, col = row[inside], col[inside]
    kind = classes(mask, row, col, block_km)
    value, plain = np.empty(row.size), draw(row, col, seed)
    for number, name in enumerate(CLASSES):
        here = np.flatnonzero(kind == number)
        ranked = here[np.argsort(plain[here], kind="stable")]
        # Of a class with few blocks in each cell the cells together have the right shares.
        start = draw(np.array(float(band)), np.array(float(cell)), f"{seed} {name}")
        value[ranked] = (np.arange(here.size) + start) / max(here.size, 1)
    table = np.full(inside.shape, np.nan)
    table[inside] = value
    return first, table
