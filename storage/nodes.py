"""Groups and arrays of a store by path, with errors in words; JSON that a store can keep."""

import math
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from storage.schema import SchemaError

# Measured on 175-band int16 tiles of a Hyperion L1T product, one thread: ratio 1.64, 370 MB/s in,
# 840 MB/s out; plain zstd-3 1.42, 150, 900; byte shuffle 1.72, 95, 900; lz4 1.54, 1150, 2750.
PIXEL_CODEC = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
COLUMN_CODEC = ZstdCodec(level=3)

# A version lists the metadata of all arrays: indented by blanks, it is twice as long.
zarr.config.set({"json_indent": None})

COLUMN_CHUNK = 2**20
"""Rows of a column in one object: a million tiles is one read a column."""


def subgroup(group: zarr.Group, path: str) -> zarr.Group:
    """Return the group at `path`.

    Raises:
        SchemaError: There is none.
    """
    node = group.get(path)
    if not isinstance(node, zarr.Group):
        raise SchemaError(f"expected a group /{path} in the store, got {node!r}")
    return node


def array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return the array `name` of `group`.

    Raises:
        SchemaError: There is none.
    """
    node = group.get(name)
    if not isinstance(node, zarr.Array):
        raise SchemaError(f"expected an array {name} in /{group.path}, got {node!r}")
    return node


def read_column(group: zarr.Group, name: str) -> np.ndarray:
    """Return a whole 1-D array."""
    return np.asarray(array(group, name)[:])


def write_column(
    group: zarr.Group, name: str, values: np.ndarray, dim: str, chunk: int | None = None
) -> None:
    """Write a 1-D array; text of any kind as variable-length UTF-8.

    `chunk`: rows in one object, for a column that grows; by default all of them, up to a million.
    """
    if values.dtype.kind in "OUT":
        values = values.astype(np.dtypes.StringDType())
    group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(chunk or max(1, min(len(values), COLUMN_CHUNK)),),
        compressors=COLUMN_CODEC,
        dimension_names=(dim,),
    )[:] = values


def append_column(column: zarr.Array[Any], values: np.ndarray) -> None:
    """Add values to the end of a 1-D array; its last object alone is written anew."""
    start = column.shape[0]
    column.resize((start + len(values),))
    column[start:] = values


def plain(value: Any) -> Any:
    """Return `value` as JSON holds it: NumPy scalars as Python's, None for NaN and infinity."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
