"""Which tiles of a version meet a condition, asked in SQL and answered by DuckDB in memory."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import zarr

from storage.export import pinned, scene_table, tile_table, write_table
from storage.location import Location
from storage.schema import SchemaError
from storage.shardoptions import Condition

SHOWN = ("tile_id", "sensor", "split", "lon", "lat", "cloud_fraction", "snr")
"""Columns of a result that names none, as far as the version has them."""
_OF_SCENES = (
    "platform", "level", "acquired", "sun_elevation", "sun_azimuth", "view_zenith",
    "crs", "product",
)  # fmt: skip
_SUFFIX = "_fraction"
_NUMBER = "row_number_"
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
}


def query(
    location: Location,
    condition: str,
    *,
    version: str | None = None,
    columns: Sequence[str] = (),
    limit: int | None = None,
) -> pa.Table:
    """Return the tiles of a version for which a condition holds, sorted by scene, row and column.

    The condition is an expression of DuckDB's SQL over the columns of the index and, of each tile's
    scene, `platform`, `level`, `acquired`, `sun_elevation`, `sun_azimuth`, `view_zenith`, `crs` and
    `product`. `<mask>_fraction` is also called by its mask's name. It can read no file, load no
    extension and change nothing. The scenes' attributes are read only if one is asked for.

    Args:
        location: The store.
        condition: Such as `cloud < 0.1 and sensor = 'ahsi'`.
        version: A tag, or None for the head.
        columns: Of the result; none: `SHOWN`, as far as the version has them.
        limit: Largest number of rows.

    Raises:
        SchemaError: No such version or column, or the condition is not one.
    """
    _, group = pinned(location, version)
    tiles = tile_table(group)
    short = _short_names(tiles.column_names)
    known = [*tiles.column_names, *_OF_SCENES]
    wanted = [short.get(name, name) for name in columns or SHOWN if columns or name in known]
    if unknown := [name for name in wanted if name not in known]:
        raise SchemaError(f"columns must be among {_listed(known, short)}, got {unknown}")
    words = set(re.findall(r"\w+", condition.lower())) | set(wanted)
    if words & set(_OF_SCENES):
        tiles = _with_scenes(group, tiles)
    return _filtered(tiles, condition, short, wanted, limit)


def condition(text: str) -> Condition:
    """Return a condition, as `query` understands it, for a set of shards."""
    return Condition(text, functools.partial(_rows, text))


def save(table: pa.Table, path: Path) -> None:
    """Write a result as the file's name says, `.parquet` or `.csv`.

    Raises:
        SchemaError: It ends in something else.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise SchemaError(f"a result is written as .parquet or .csv, got {path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        write_table(table, path)
    else:
        pa.csv.write_csv(table, path)


def _rows(text: str, group: zarr.Group, index: pa.Table) -> np.ndarray:
    """Return the rows (int64) of a version's index that meet a condition, ascending."""
    if set(re.findall(r"\w+", text.lower())) & set(_OF_SCENES):
        index = _with_scenes(group, index)
    found = _filtered(index, text, _short_names(index.column_names), [_NUMBER], None)
    return np.asarray(found[_NUMBER].to_numpy())


def _filtered(
    tiles: pa.Table, condition: str, short: dict[str, str], wanted: list[str], limit: int | None
) -> pa.Table:
    with duckdb.connect(config=_LOCKED) as connection:
        connection.register("tiles", tiles.append_column(_NUMBER, _numbers(len(tiles))))
        named = ", ".join(f'"{name}" AS "{mask}"' for mask, name in short.items())
        everything = connection.query(f"SELECT *{', ' + named if named else ''} FROM tiles")  # noqa: S608 (our own column names)
        connection.execute("SET lock_configuration = true")
        try:
            # An expression alone is parsed here: no second statement, no clause of its own.
            found = everything.filter(condition).order(_NUMBER)
            found = found.limit(limit) if limit is not None else found
            return found.project(", ".join(f'"{name}"' for name in wanted)).to_arrow_table()
        except duckdb.Error as error:
            said = str(error).split("\n\n")[0].replace("\n", " ")
            raise SchemaError(
                f"the condition {condition!r} cannot be answered: {said}; "
                f"columns are {_listed([*tiles.column_names, *_OF_SCENES], short)}"
            ) from error


def _with_scenes(group: zarr.Group, tiles: pa.Table) -> pa.Table:
    scenes = scene_table(group, tiles, places=False)
    names = {name: number for number, name in enumerate(scenes["scene_id"].to_pylist())}
    code = tiles["scene_id"].combine_chunks()
    place = pa.array([names[name] for name in code.dictionary.to_pylist()], pa.int32())
    rows = place.take(code.indices)
    for name in _OF_SCENES:
        tiles = tiles.append_column(name, scenes[name].take(rows))
    return tiles


def _short_names(columns: Sequence[str]) -> dict[str, str]:
    """Return quality columns by their masks' names, where no column has that name."""
    masks = {n.removesuffix(_SUFFIX): n for n in columns if n.endswith(_SUFFIX)}
    return {mask: name for mask, name in masks.items() if mask not in columns}


def _listed(columns: Sequence[str], short: dict[str, str]) -> str:
    masks = {name: mask for mask, name in short.items()}
    return ", ".join(f"{n} ({masks[n]})" if n in masks else n for n in dict.fromkeys(columns))


def _numbers(count: int) -> pa.Array:
    return pa.array(range(count), pa.int64())
