"""Counts in bins that narrow towards zero: quantiles of any pixels, within 0.8 % of the value.

A bin is 1/64 of the numbers between two powers of two, as wide as float32 numbers that share sign,
exponent and six bits of the mantissa: the bins of a DDSketch, with the logarithm interpolated
between powers of two. Counts of two sets add up to those of both, and subtract again.

Source: Masson, Rim & Lee 2019, doi:10.14778/3352063.3352135.
"""

import numpy as np
from numpy.typing import NDArray

from storage.schema import INTEGER_FILL, SPLITS

SUB_BINS = 64
RELATIVE_ACCURACY = 1 / (2 * SUB_BINS)
"""Of a quantile of magnitudes from 2**-13 to 2**16; nearer to zero it is 0, beyond them the end."""
STEP = 32
"""One row of each so many is looked at; the first goes round with the tile's number. Whole rows
meet all of a pushbroom imager's detectors, and are read faster than every nth row and column."""
_TOGETHER = 256
"""Tiles whose rows are counted at a time: the calls for each band cost as much as 64 tiles do."""
_LOW, _HIGH = -13, 16
BINS = (_HIGH - _LOW) * SUB_BINS
"""Bin numbers are -BINS..BINS; 0 holds what is nearer to zero than 2**-13."""
LIMIT = 2.0**_HIGH
"""Beyond it a float counts as this in sums: no pixel of reflectance or radiance is."""
_NAN_BIN = 2 * BINS + 1
_PARTS = {"i": 0, "1": 24, "": 14}
"""Bits behind the binary point in sums: of integers, of reflectance [1], of any other float."""


class SceneSketch:
    """Counts and sums by split and band of a lattice of one scene's pixels.

    The rest of a tile's pixels is not looked at: a full pass takes a tenth of a build's time.

    Args:
        bands: How many the tiles have.
        dtype: int16 or float32.
        units: Of the tiles.
    """

    def __init__(self, bands: int, dtype: np.dtype[np.generic], units: str) -> None:
        self._counts = np.zeros((len(SPLITS), bands, 2 * BINS + 1), np.int64)
        self.moments = np.zeros((len(SPLITS), bands, 3), np.int64)
        """Count, sum and sum of squares (split, band, 3); sums in units of 1 / `parts(...)`."""
        self._parts = parts(dtype, units)
        self._integers = dtype.kind == "i"
        self._tiles = 0
        self._waiting: list[tuple[NDArray[np.generic], NDArray[np.uint8]]] = []

    def add(
        self, tiles: NDArray[np.generic], valid: NDArray[np.bool_], split: NDArray[np.uint8]
    ) -> None:
        """Take the next tiles (tile, band, y, x), with valid (tile, y, x) and split (tile)."""
        self._waiting.append((_lattice(tiles, valid, self._tiles), split.copy()))
        self._tiles += len(tiles)
        if sum(len(some) for _, some in self._waiting) >= _TOGETHER:
            self._count()

    def trimmed(self) -> tuple[NDArray[np.integer], int]:
        """Return counts (split, band, bin) from the first bin in use to the last; its number."""
        self._count()
        return trim(self._counts, -BINS)

    def _count(self) -> None:
        add = self._add_integers if self._integers else self._add_floats
        for code in range(len(SPLITS)):
            some = [pixels[:, split == code] for pixels, split in self._waiting]
            if some and sum(pixels.shape[1] for pixels in some):
                for band, values in enumerate(np.concatenate(some, axis=1)):
                    add(code, band, values)
        self._waiting.clear()

    def _add_integers(self, split: int, band: int, values: NDArray[np.int16]) -> None:
        # Each integer is counted first: that gives exact sums, and few counts to put into bins.
        low = min(0, int(values.min()))
        flat = values.ravel()
        found = np.bincount(flat.astype(np.int64) - low if low else flat)
        for fill in INTEGER_FILL:
            if low <= fill < low + len(found):
                found[fill - low] = 0
        start = low - int(_INTEGERS[0])
        here, exact = slice(start, start + len(found)), found.astype(np.float64)
        sums = exact.sum(), (exact * _INTEGERS[here]).sum(), (exact * _SQUARES[here]).sum()
        self.moments[split, band] += np.array(sums).astype(np.int64)
        first, last = np.searchsorted(_FIRST, [start, start + len(found) - 1], side="right")
        edges = np.maximum(_FIRST[first - 1 : last] - start, 0)
        self._counts[split, band, _BIN_OF_FIRST[first - 1 : last]] += np.add.reduceat(found, edges)

    def _add_floats(self, split: int, band: int, values: NDArray[np.float32]) -> None:
        # Sign, exponent and mantissa's first bits are the upper half of a float32.
        codes = values.view(np.uint16)[:, _UPPER::2].ravel()
        found = np.bincount(_BIN_OF_CODE.take(codes))
        exact = values.astype(np.float64)
        if len(found) > _NAN_BIN:
            exact[~np.isfinite(exact)] = 0
        np.clip(exact, -LIMIT, LIMIT, out=exact)
        found = found[:_NAN_BIN]
        self._counts[split, band, : len(found)] += found
        # A tile's sums become integers, so that those of many add up the same in any order.
        sums = exact.sum(axis=1), np.einsum("tp,tp->t", exact, exact)
        rounded = (int(np.rint(each * self._parts).astype(np.int64).sum()) for each in sums)
        self.moments[split, band] += (int(found.sum()), *rounded)


def parts(dtype: np.dtype[np.generic], units: str) -> int:
    """Return by what sums of such tiles are multiplied to be kept as integers."""
    kind = dtype.kind if dtype.kind == "i" else units if units == "1" else ""
    return int(2 ** _PARTS[kind])


def trim(counts: NDArray[np.integer], first: int) -> tuple[NDArray[np.integer], int]:
    """Return counts (split, band, bin) without empty bins at their ends, and the first's number."""
    used = np.flatnonzero(counts.any(axis=(0, 1)))
    if not used.size:
        return counts[..., :1] * 0, 0
    return counts[..., used[0] : used[-1] + 1], first + int(used[0])


def bin_values(first: int, count: int, *, integers: bool) -> NDArray[np.float64]:
    """Return the numbers (bin) that stand for bins `first`, `first` + 1, ...: their middles."""
    number = np.arange(first, first + count)
    size = np.abs(number) - 1
    octave, within = np.divmod(np.maximum(size, 0), SUB_BINS)
    base = 2.0 ** (octave + _LOW)
    low, width = base * (1 + within / SUB_BINS), base / SUB_BINS
    # An integer that has its bin to itself is that bin's lower end.
    middle = low + (np.maximum(width - 1, 0) if integers else width) / 2
    return np.where(number == 0, 0.0, np.sign(number) * middle)


def quantiles(
    counts: NDArray[np.integer], values: NDArray[np.float64], probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return quantiles (probability, band) of counts (band, bin); NaN for a band without pixels.

    Args:
        counts: Of the bins.
        values: What stands for each bin (bin), ascending.
        probabilities: Of the quantiles [1]; each is that of numpy's method `lower`.
    """
    below = np.cumsum(counts, axis=1, dtype=np.int64)
    total = below[:, -1] if below.shape[1] else np.zeros(len(counts), np.int64)
    found = np.full((len(probabilities), len(counts)), np.nan)
    for band in np.flatnonzero(total):
        rank = np.floor(probabilities * (total[band] - 1))
        found[:, band] = values[np.searchsorted(below[band], rank, side="right")]
    return found


def _lattice(
    tiles: NDArray[np.generic], valid: NDArray[np.bool_], number: int
) -> NDArray[np.generic]:
    """Return (band, tile, pixel) of tiles `number`, ...; what is not valid is fill or NaN."""
    count, bands, rows, cols = tiles.shape
    pixels = np.empty((bands, count, rows // STEP, cols), tiles.dtype.newbyteorder("="))
    nothing = INTEGER_FILL[0] if tiles.dtype.kind == "i" else np.nan
    for place in range(count):
        # 7 and 32 have no common divisor, and neighbouring tiles' rows lie apart.
        seen = slice((number + place) * 7 % STEP, None, STEP)
        pixels[:, place] = tiles[place, :, seen]
        if not (good := valid[place, seen]).all():
            pixels[:, place, ~good] = nothing
    return pixels.reshape(bands, count, -1)


def _bin_of(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return bin numbers, shifted by BINS; `_NAN_BIN` for what is no finite number."""
    bits = np.abs(values).view(np.uint32).astype(np.int64)
    size = np.clip((bits >> 17) - ((_LOW + 127) << 6) + 1, 0, BINS)
    return np.where(np.isfinite(values), BINS + np.where(values < 0, -size, size), _NAN_BIN)


_UPPER = 1 if np.little_endian else 0
_BIN_OF_CODE = _bin_of((np.arange(65536, dtype=np.uint32) << 16).view(np.float32))
_INTEGERS = np.arange(-32768, 32768, dtype=np.float64)
_SQUARES = _INTEGERS**2
_BIN_OF_INTEGER = _bin_of(_INTEGERS.astype(np.float32))
_FIRST = np.flatnonzero(np.diff(_BIN_OF_INTEGER, prepend=-1))
"""Of the integers, counted from -32768: the first of each bin that has one."""
_BIN_OF_FIRST = _BIN_OF_INTEGER[_FIRST]
