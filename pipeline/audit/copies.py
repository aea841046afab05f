"""Tiles whose spectral hashes are equal or nearly so: the same picture twice."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BITS_APART = 3
_PARTS = BITS_APART + 1
"""Of two words that differ in three bits, one of four parts at least is equal."""
_SMALL = 512
_AT_A_TIME = 4_000_000
Rows = NDArray[np.int64]


def near_copies(patterns: NDArray[np.uint64]) -> tuple[Rows, Rows]:
    """Return all pairs (pair,), (pair,) of different words at most three bits apart.

    Source: Manku, Jain & Das Sarma 2007, doi:10.1145/1242572.1242592, section 3.

    Args:
        patterns: Words, no two of them equal.
    """
    found = [_close(patterns, *pair) for pair in _candidates(patterns, np.arange(64))]
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    one, other = (np.concatenate(side) for side in zip(*found, strict=True))
    both = np.unique(np.stack([np.minimum(one, other), np.maximum(one, other)]), axis=1)
    return both[0], both[1]


def _candidates(
    patterns: NDArray[np.uint64], bits: NDArray[np.int64], rows: Rows | None = None
) -> Iterator[tuple[Rows, Rows]]:
    """Yield pairs that agree in one of four parts of `bits`; in large groups, likewise again."""
    rows = np.arange(len(patterns)) if rows is None else rows
    for part in np.array_split(bits, _PARTS):
        mask = np.bitwise_or.reduce(np.uint64(1) << part.astype(np.uint64))
        keys = patterns[rows] & mask
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        starts, stops = np.r_[0, edges], np.r_[edges, len(rows)]
        sizes = stops - starts
        rest = np.setdiff1d(bits, part)
        for start, stop in zip(starts[sizes > _SMALL], stops[sizes > _SMALL], strict=True):
            group = rows[order[start:stop]]
            if rest.size >= _PARTS:
                yield from _candidates(patterns, rest, group)
            else:
                yield from _all_pairs(group)
        # Groups of one size are one table each.
        for size in np.unique(sizes[(sizes > 1) & (sizes <= _SMALL)]):
            table = rows[order[starts[sizes == size][:, None] + np.arange(size)]]
            one, other = np.triu_indices(size, 1)
            step = max(1, _AT_A_TIME // one.size)
            for first in range(0, len(table), step):
                some = table[first : first + step]
                yield some[:, one].ravel(), some[:, other].ravel()


def _all_pairs(rows: Rows) -> Iterator[tuple[Rows, Rows]]:
    for place in range(len(rows) - 1):
        yield np.full(len(rows) - place - 1, rows[place]), rows[place + 1 :]


def _close(patterns: NDArray[np.uint64], one: Rows, other: Rows) -> tuple[Rows, Rows]:
    near = np.bitwise_count(patterns[one] ^ patterns[other]) <= BITS_APART
    return one[near], other[near]
