"""A tile's spectral hash: 64 bits that a copy of its pixels shares, wherever it came from.

Of eight bands, means along a row of each eighth are taken, and their second differences, across,
down and both, made even in size; each bit is the side of a fixed plane that those lie on (SimHash).
So bits follow from the picture's form alone: not from gain, offset or rounding, nor from the tile's
number or scene. Of two unlike tiles half of the bits differ, 32 +- 4.5 in pictures whose spectrum
falls as 1/f or 1/f2: among a million such tiles no two are expected to be within 3 bits.

Source: Charikar 2002, doi:10.1145/509907.509965 (random planes).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from storage.schema import INTEGER_FILL, TILE_SIZE

_BANDS, _ROWS, _COLS = 8, 8, 16
_ROW_STEP, _RUN = TILE_SIZE // _ROWS, TILE_SIZE // _COLS
_EDGES = (_ROWS - 2) * _COLS + _ROWS * (_COLS - 2) + (_ROWS - 1) * (_COLS - 1)


def patterns(tiles: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return the spectral hash (tile) of tiles (tile, band, y, x) with valid (tile, y, x).

    0 for a tile in whose looked-at bands nothing differs: it has none.
    """
    bands = np.linspace(0, tiles.shape[1] - 1, min(_BANDS, tiles.shape[1])).round().astype(int)
    rows = slice(_ROW_STEP // 2, None, _ROW_STEP)
    edges = _edges(_means(tiles[:, bands, rows], valid[:, None, rows]))
    # No BLAS: its threads go on spinning after so small a product, on cores that others need.
    sides = np.einsum("te,be->tb", edges, _PLANES[:, : edges.shape[1]]) > 0
    found = np.packbits(sides, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return np.where(edges.any(axis=1), found, np.uint64(0))


def _edges(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return second differences (tile, edge), evened to -1..1; 0 beside a mean of nothing."""
    pairs = np.diff(means, axis=3)
    steps = (np.diff(means, n=2, axis=2), np.diff(pairs, axis=3), np.diff(pairs, axis=2))
    flat = [step.reshape(*means.shape[:2], -1) for step in steps]
    step = np.nan_to_num(np.concatenate(flat, axis=2))
    size = np.abs(step)
    # Small differences count nearly as much as a coast does, or all coasts would look alike.
    usual = np.median(size, axis=2, keepdims=True)
    even = np.divide(step, size + usual, out=np.zeros_like(step), where=size > 0)
    edges: NDArray[np.float64] = even.reshape(len(means), -1)
    return edges


def _means(pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return means (tile, band, 8, 16) of what is measured in runs of 4 pixels; NaN for none."""
    if pixels.dtype.kind == "f":
        good = valid & np.isfinite(pixels)
    else:
        good = valid & (pixels != INTEGER_FILL[0]) & (pixels != INTEGER_FILL[1])
    if good.all():
        return _sums(pixels) / _RUN
    count = _sums(good)
    total = _sums(np.where(good, pixels, 0))
    means: NDArray[np.float64] = np.full(total.shape, np.nan)
    return np.divide(total, count, out=means, where=count > 0)


def _sums(values: NDArray[np.generic]) -> NDArray[np.float64]:
    runs = values.reshape(*values.shape[:3], _COLS, _RUN).astype(np.float64)
    # One after the other, so that no library's way of adding many changes a last bit.
    return np.asarray(sum(runs[..., pixel] for pixel in range(_RUN)))


def _planes() -> NDArray[np.float64]:
    """Return 64 planes' normals (bit, edge) of +1 and -1, from SHA-256: the same for ever."""
    count = 64 * _BANDS * _EDGES
    words = b"".join(
        hashlib.sha256(f"plane {n}".encode()).digest() for n in range(-(-count // 256))
    )
    bits = np.unpackbits(np.frombuffer(words, np.uint8))[:count]
    planes: NDArray[np.float64] = (2.0 * bits.astype(np.float64) - 1).reshape(64, -1)
    return planes


_PLANES = _planes()
