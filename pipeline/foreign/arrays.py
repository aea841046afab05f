"""One tile's array from the bytes of a file that somebody else wrote. Nothing is ever unpickled."""

import io
import struct
import tokenize
import warnings
import zlib

import numpy as np
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from storage.schema import INTEGER_FILL, TILE_SIZE

_NUMBERS = (
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "single", "double",
)  # fmt: skip
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_AT = (0, 512)
_DAMAGED = (
    ValueError, TypeError, LookupError, ArithmeticError, AttributeError, SyntaxError, MemoryError,
    RecursionError, NotImplementedError, EOFError, OSError, struct.error, zlib.error,
    tokenize.TokenError, MatReadError, Warning,
)  # fmt: skip
"""What NumPy and SciPy raise on bytes that are no file of theirs; the bytes are in memory already,
so that none of these is an error of the disk."""


class UnfitError(ValueError):
    """An input that cannot become a tile.

    Args:
        reason: One of few, to be counted by.
        detail: What was expected, and what came.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_array(data: bytes, kind: str, key: str) -> np.ndarray:
    """Return the array (band, 64, 64) of an npy file, or of a variable of a MATLAB file.

    Shape and type are looked at before any pixel is unpacked.

    Args:
        data: The whole file.
        kind: "npy" or "mat".
        key: The variable.

    Raises:
        UnfitError: It is damaged, or holds something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return _npy(data) if kind == "npy" else _mat(data, key)
    except UnfitError:
        raise
    except _DAMAGED as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnfitError("unreadable", f"expected a whole {kind} file: {text}") from error


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values in the dtype of the set, if none is lost.

    Floats that are whole numbers may become int16; to float32 they are rounded, integers are not.

    Raises:
        UnfitError: A value would be another one, or is infinite.
    """
    floats = values.dtype.kind == "f"
    if floats and np.isinf(values).any():
        raise UnfitError("infinite", "expected numbers or NaN, got infinity")
    if dtype == "int16":
        if floats and np.isnan(values).any():
            raise UnfitError("NaN", "expected whole numbers for int16, got NaN")
        if floats and not np.array_equal(values, np.rint(values)):
            raise UnfitError("dtype", f"expected whole numbers for int16, got {_range(values)}")
        limits = np.iinfo(np.int16)
        if values.min() < limits.min or values.max() > limits.max:
            raise UnfitError("range", f"expected numbers that fit int16, got {_range(values)}")
        return np.ascontiguousarray(values, np.int16)
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(values, np.float32)
    if np.isinf(cast).any() or not (floats or np.array_equal(cast, values.astype(np.float64))):
        raise UnfitError("range", f"expected numbers that fit float32, got {_range(values)}")
    return cast


def without(values: np.ndarray, nodata: float) -> np.ndarray:
    """Return values with 0 in place of one that stands for no measurement.

    It is compared as a number of the values' own type: 1e36 is not quite that in float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        own = np.array(nodata).astype(values.dtype)
    if values.dtype.kind != "f" and own != nodata:
        return values  # no number of this type
    return np.where(values == own, values.dtype.type(0), values)


def measured(pixels: np.ndarray) -> np.ndarray:
    """Return which pixels (y, x) of a tile (band, y, x) hold data in any band.

    0, the overflow of Hyperion's calibration, and NaN are none.
    """
    if pixels.dtype.kind == "f":
        return np.asarray((np.isfinite(pixels) & (pixels != 0)).any(axis=0))
    return np.asarray(((pixels != INTEGER_FILL[0]) & (pixels != INTEGER_FILL[1])).any(axis=0))


def _npy(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise UnfitError("unreadable", f"expected npy of version 1 or 2, got {version}")
    _check_shape(shape)
    if dtype.kind not in "iuf":
        raise UnfitError("dtype", f"expected integers or floats, got {dtype}")
    count, at = int(np.prod(shape)), file.tell()
    if len(data) - at != count * dtype.itemsize:
        size = f"{count * dtype.itemsize} bytes of values, got {len(data) - at}"
        raise UnfitError("unreadable", f"expected {size}")
    flat = np.frombuffer(data, dtype, count, at)
    return flat.reshape(shape, order="F" if fortran else "C")


def _mat(data: bytes, key: str) -> np.ndarray:
    if any(data[at : at + len(_HDF5)] == _HDF5 for at in _HDF5_AT):
        raise UnfitError(
            "MATLAB 7.3",
            "expected a MATLAB file of version 5 to 7, got 7.3 (HDF5); save it in MATLAB with "
            "`save(file, '-v7')`",
        )
    variables = {name: (shape, kind) for name, shape, kind in whosmat(io.BytesIO(data))}
    if key not in variables:
        raise UnfitError("key", f"expected a variable {key}, got {', '.join(variables) or 'none'}")
    shape, kind = variables[key]
    _check_shape(shape)
    if kind not in _NUMBERS:
        raise UnfitError("dtype", f"expected integers or floats, got {kind}")
    found = np.asarray(loadmat(io.BytesIO(data), variable_names=[key])[key])
    if found.shape != shape or found.dtype.kind not in "iuf":
        raise UnfitError("dtype", f"expected integers or floats, got {found.dtype} {found.shape}")
    return found


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or shape[1:] != (TILE_SIZE, TILE_SIZE) or not 0 < shape[0] < 2**12:
        raise UnfitError("shape", f"expected (band, {TILE_SIZE}, {TILE_SIZE}), got {shape}")


def _range(values: np.ndarray) -> str:
    return f"{values.dtype} from {values.min()} to {values.max()}"
