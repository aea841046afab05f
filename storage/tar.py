"""One tar file whose bytes depend on its members alone, and where their payloads lie in it."""

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from storage.schema import SchemaError

_BLOCK = tarfile.BLOCKSIZE
_RECORD = tarfile.RECORDSIZE


@dataclass(frozen=True)
class Span:
    """A range of bytes of a file."""

    offset: int
    length: int


class TarWriter:
    """A tar file (ustar) in the making, at a temporary name until it is closed without error.

    Owner, mode and time of every member are fixed: same members, same bytes.

    Args:
        path: The final name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._partial = path.with_name(f"{path.name}.tmp")
        self._digest = hashlib.sha256()
        self._file = self._partial.open("wb")

    def add_bytes(self, name: str, data: bytes) -> Span:
        """Append a file."""
        return self._add(name, b"", memoryview(data))

    def add_array(self, name: str, values: np.ndarray) -> Span:
        """Append an array as npy (version 1.0, C order) and return where its values lie."""
        values = np.ascontiguousarray(values)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, np.lib.format.header_data_from_array_1_0(values)
        )
        return self._add(name, header.getvalue(), memoryview(values).cast("B"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._write(bytes(2 * _BLOCK))
            self._write(bytes(-self.bytes % _RECORD))
        self._file.close()
        if error is None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink()

    @property
    def sha256(self) -> str:
        """Digest of what has been written so far; of the whole file once it is closed."""
        return self._digest.hexdigest()

    def _add(self, name: str, header: bytes, payload: memoryview) -> Span:
        info = tarfile.TarInfo(name)
        info.size = len(header) + len(payload)
        try:
            self._write(info.tobuf(tarfile.USTAR_FORMAT))
        except ValueError as error:
            raise SchemaError(f"{name} must fit a tar header, 100 characters: {error}") from error
        self._write(header)
        span = Span(self.bytes, len(payload))
        self._write(payload)
        self._write(bytes(-self.bytes % _BLOCK))
        return span

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)
