"""Rows of an npy file, each read when it is asked for.

A table that is mapped and read at random stays, page by page and more, in every reader's memory.
"""

import os
import weakref
from pathlib import Path

import numpy as np

from storage.schema import DamagedError

_AGAIN = "write the set again with `hypersigma-data shards`"


class RowFile:
    """A C-ordered npy file (row, column), open for reading.

    Args:
        path: On this machine.

    Raises:
        DamagedError: The file is not one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            try:
                np.lib.format.read_magic(file)
                shape, fortran, self.dtype = np.lib.format.read_array_header_1_0(file)
                if fortran or len(shape) != 2:
                    raise ValueError(f"{shape=} {fortran=}")
            except ValueError as error:
                raise DamagedError(
                    f"{path}: expected an npy file of rows, got {error}; {_AGAIN}"
                ) from error
            self._first = file.tell()
            self._number = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._number)
        self.rows, self.columns = shape

    def row(self, number: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read a row's columns from `start` to before `stop`.

        Raises:
            DamagedError: The file ends before.
        """
        columns = range(self.columns)[start:stop]
        size = self.dtype.itemsize
        at = self._first + (number * self.columns + columns.start) * size
        data = os.pread(self._number, len(columns) * size, at)
        if len(data) != len(columns) * size:
            raise DamagedError(
                f"{self.path}: expected row {number} of {self.rows}, got the file's end; {_AGAIN}"
            )
        return np.frombuffer(data, self.dtype)
