"""Rows of a map in the making: numbers in a file, so that what was cut off goes on behind them.

Shape letters: K answers a pixel, n rows, W columns.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hypersigma.runlog import plain_json


class Rows:
    """A file of rows, each (K + 1, W) float32: the answers, and 1 where the pixel is valid.

    Beside it lies whose rows they are and how many are safe on the disk; the rows of another model
    or scene are thrown away.

    Args:
        path: Of the file; it is removed by `remove`.
        identity: Plain data that says whose rows they are.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path, self._note = path, path.with_suffix(".json")
        self._identity = json.loads(plain_json(identity))
        self._shape: tuple[int, int] | None = None
        self.count = 0
        """Rows that are there."""
        self.strips = 0
        """Strips that they came in."""
        note = self._read_note()
        if note is not None:
            self.count, self.strips = note["rows"], note["strips"]
            self._shape = (note["shape"][0], note["shape"][1])
        path.parent.mkdir(parents=True, exist_ok=True)
        if note is None:
            # First: a note of other rows must not find these.
            self._note.unlink(missing_ok=True)
        self._file = path.open("r+b" if note is not None else "w+b")
        if self._shape is not None:
            self._file.truncate(self.count * self._row_bytes)

    def append(self, answers_KnW: NDArray[np.float32], valid_nW: NDArray[np.bool_]) -> None:
        """Add a strip, which is on the disk when this returns."""
        parts = (answers_KnW, valid_nW[None].astype(np.float32))
        strip_nKW = np.concatenate(parts).transpose(1, 0, 2)
        self._shape = (strip_nKW.shape[1], strip_nKW.shape[2])
        self._file.seek(self.count * self._row_bytes)
        self._file.write(np.ascontiguousarray(strip_nKW, np.float32).tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.count, self.strips = self.count + len(strip_nKW), self.strips + 1
        note = {"identity": self._identity, "rows": self.count, "strips": self.strips,
                "shape": self._shape}  # fmt: skip
        temporary = self._note.with_suffix(".new")
        temporary.write_text(json.dumps(note), encoding="utf-8")
        temporary.replace(self._note)

    def read(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return rows as they were appended: (K, n, W) and (n, W)."""
        assert self._shape is not None, "no rows yet"  # noqa: S101
        self._file.seek(first * self._row_bytes)
        data = self._file.read((last - first) * self._row_bytes)
        strip_nKW = np.frombuffer(data, np.float32).reshape(-1, *self._shape)
        return strip_nKW[:, :-1].transpose(1, 0, 2), strip_nKW[:, -1] > 0

    def remove(self) -> None:
        """Remove the file and its note."""
        self._file.close()
        for path in (self._note, self._path):
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def _row_bytes(self) -> int:
        assert self._shape is not None, "no rows yet"  # noqa: S101
        return 4 * self._shape[0] * self._shape[1]

    def _read_note(self) -> dict[str, Any] | None:
        try:
            note: dict[str, Any] = json.loads(self._note.read_text(encoding="utf-8"))
            size = self._path.stat().st_size
            whole = size >= note["rows"] * 4 * note["shape"][0] * note["shape"][1]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return note if whole and note["identity"] == self._identity else None
