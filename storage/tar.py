"""A tar file whose bytes depend on its members alone, and where their payloads lie in it."""

import io
import tarfile
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from storage.places import Sink
from storage.schema import SchemaError

_BLOCK = tarfile.BLOCKSIZE
_RECORD = tarfile.RECORDSIZE


@dataclass(frozen=True)
class Span:
    """A range of bytes of a file."""

    offset: int
    length: int


class TarWriter:
    """A tar file (ustar) in the making, ended when its context ends without error.

    Owner, mode and time of every member are fixed: same members, same bytes.

    Args:
        sink: Takes its bytes.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def add_bytes(self, name: str, data: bytes) -> Span:
        """Append a file."""
        return self._add(name, b"", memoryview(data))

    def add_array(self, name: str, values: np.ndarray) -> Span:
        """Append an array as npy (version 1.0, C order) and return where its values lie."""
        return self._add(name, npy_header(values), memoryview(values).cast("B"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._sink.write(bytes(2 * _BLOCK))
            self._sink.write(bytes(-self._sink.bytes % _RECORD))

    def _add(self, name: str, header: bytes, payload: memoryview) -> Span:
        info = tarfile.TarInfo(name)
        info.size = len(header) + len(payload)
        try:
            self._sink.write(info.tobuf(tarfile.USTAR_FORMAT))
        except ValueError as error:
            raise SchemaError(f"{name} must fit a tar header, 100 characters: {error}") from error
        self._sink.write(header)
        span = Span(self._sink.bytes, len(payload))
        self._sink.write(payload)
        self._sink.write(bytes(-self._sink.bytes % _BLOCK))
        return span


def npy_header(values: np.ndarray) -> bytes:
    """Return the npy header (version 1.0) of a C-contiguous array."""
    return header_of(values.dtype, values.shape)


def header_of(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Return the npy header (version 1.0) of an array in C order."""
    header = io.BytesIO()
    described = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        header, {"descr": described, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()
