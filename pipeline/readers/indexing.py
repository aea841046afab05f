"""NumPy's basic indexing for lazy sources that can only read boxes."""

import operator
from collections.abc import Sequence
from typing import SupportsIndex

type Key = Sequence[slice | SupportsIndex]
"""What Dask asks of a source, which it fuses indexing into: slices with steps, and integers."""


def covering_box(
    key: Key, shape: tuple[int, ...]
) -> tuple[list[tuple[int, int]], tuple[slice | int, ...]]:
    """Return the box that holds what `key` asks for, and the key that takes it out of the box.

    Args:
        key: One slice or integer an axis.
        shape: Of the source.

    Returns:
        (first, end) of each axis, equal where nothing is asked for; and the key inside the box.
    """
    spans: list[tuple[int, int]] = []
    inside: list[slice | int] = []
    for part, size in zip(key, shape, strict=True):
        if not isinstance(part, slice):
            index = range(size)[operator.index(part)]
            spans.append((index, index + 1))
            inside.append(0)
            continue
        wanted = range(size)[part]
        ends = (min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1) if wanted else (0, 0)
        spans.append(ends)
        inside.append(slice(None, None, wanted.step))
    return spans, tuple(inside)
