"""Memory of batches, used again when nobody has them any more.

A system gives large blocks as pages that it has to clear and map first, which takes as long as it
takes to read into them.
"""

from collections import deque
from typing import Any

import numpy as np

_KEPT = 2
"""Blocks that wait to be used again."""


class Buffers:
    """Gives arrays whose memory comes back when the last view of them is gone; of one thread."""

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=_KEPT)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Return an array of any values."""
        size = int(np.prod(shape)) * dtype.itemsize
        block = self._free.pop() if self._free else np.empty(0, np.uint8)
        if len(block) != size:
            block = np.empty(size, np.uint8)
        return np.asarray(_Lent(block, self._free)).view(dtype).reshape(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has its own.
        return Buffers, ()


class _Lent:
    """Keeps a block for as long as there is an array of it, whose base this is."""

    def __init__(self, block: np.ndarray, free: deque[np.ndarray]) -> None:
        self.__array_interface__ = block.__array_interface__
        self._block, self._free = block, free

    def __del__(self) -> None:
        self._free.append(self._block)
