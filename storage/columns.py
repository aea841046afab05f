"""A scene's columns in its group: the contract's as arrays of their own, the others side by side.

Each commit writes a list of all arrays of all scenes, so a scene has few: `measures` and
`digests` (tile, ...) and `calibration` (band, ...) have several columns each, with their names in
the attribute `columns`. Scenes of before have an array a column; both read the same.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from storage.nodes import COLUMN_CHUNK, COLUMN_CODEC, array, write_column
from storage.schema import CHECKSUM, PATTERN, SchemaError

if TYPE_CHECKING:
    import xarray as xr  # seconds that a reader of the index does not need


@dataclass(frozen=True)
class _Table:
    """Columns of one kind, side by side in one array."""

    dim: str
    across: str
    """The other dimension's name."""
    dtype: str
    names: tuple[str, ...] = ()
    """The columns; none: all that have no other place."""


_ALONE = {
    "band": ("band", "wavelength", "fwhm"),
    "tile": ("row", "col", "lon", "lat", "split", "tile_id"),
}
_TABLES = {
    "digests": _Table("tile", "digest", "u8", (PATTERN, CHECKSUM)),
    "measures": _Table("tile", "measure", "f4"),
    "calibration": _Table("band", "term", "f8"),
}


def write_columns(group: zarr.Group, dim: str, columns: dict[str, np.ndarray]) -> None:
    """Write a scene's columns on `tile` or `band`.

    Text goes beside numbers as numbers of the attribute `labels`; a number is stored as float32 on
    `tile`, as float64 on `band`.
    """
    rest = dict(columns)
    for name in _ALONE[dim]:
        if name in rest:
            write_column(group, name, rest.pop(name), dim)
    for name, table in _TABLES.items():
        if table.dim == dim:
            chosen = [each for each in table.names or tuple(rest) if each in rest]
            if chosen:
                _write(group, name, table, {each: rest.pop(each) for each in chosen})


def read_columns(scene: zarr.Group, dim: str) -> dict[str, np.ndarray]:
    """Return all columns of a scene on `tile` or `band`, by their names."""
    found: dict[str, np.ndarray] = {}
    for name, node in scene.arrays():
        dims = getattr(node.metadata, "dimension_names", None)
        if dims == (dim,):
            found[name] = np.asarray(node[:])
        elif name in _TABLES and dims == (dim, _TABLES[name].across):
            found |= _apart(np.asarray(node[:]), node.attrs.asdict())
    return found


def read_checksums(scene: zarr.Group) -> np.ndarray | None:
    """Return the checksums (tile) of a scene's tiles, None for a scene of before there were any."""
    if "digests" in scene:
        node = array(scene, "digests")
        return _apart(np.asarray(node[:]), node.attrs.asdict()).get(CHECKSUM)
    return np.asarray(array(scene, CHECKSUM)[:]) if CHECKSUM in scene else None


def apart(scene: "xr.Dataset") -> "xr.Dataset":
    """Return an opened scene with each column as a coordinate of its own, whatever its layout."""
    for name, table in _TABLES.items():
        if name in scene and scene[name].dims == (table.dim, table.across):
            columns = _apart(scene[name].values, scene[name].attrs)
            scene = scene.drop_vars(name)
            scene = scene.assign_coords({each: (table.dim, c) for each, c in columns.items()})
    return scene


def _write(group: zarr.Group, name: str, table: _Table, columns: dict[str, np.ndarray]) -> None:
    labels: dict[str, list[str]] = {}
    values = np.empty((len(next(iter(columns.values()))), len(columns)), table.dtype)
    for number, (each, column) in enumerate(columns.items()):
        if column.dtype.kind in "OUT":
            found, column = np.unique(column.astype("U"), return_inverse=True)
            labels[each] = found.tolist()
        values[:, number] = column
        if column.dtype.kind in "iu" and not np.array_equal(values[:, number], column):
            raise SchemaError(
                f"column {each}: expected whole numbers that {values.dtype} holds, got up to "
                f"{np.abs(column).max()}; give it as text, or in parts"
            )
    group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(max(1, min(len(values), COLUMN_CHUNK // len(columns))), len(columns)),
        compressors=COLUMN_CODEC,
        dimension_names=(table.dim, table.across),
        attributes={"columns": list(columns), **({"labels": labels} if labels else {})},
    )[:] = values


def _apart(values: np.ndarray, attrs: dict[str, Any]) -> dict[str, np.ndarray]:
    labels = attrs.get("labels", {})
    columns = zip(attrs["columns"], values.T, strict=True)
    return {
        name: np.array(labels[name], "U")[column.astype(int)] if name in labels else column.copy()
        for name, column in columns
    }
