"""Which foreign tiles there are, as the rows of a set's index, before one is read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.foreign.arrays import UnfitError
from pipeline.foreign.listing import Entry, Sources
from pipeline.foreign.names import LONGEST_ID, Named, read_name, split_of
from storage.schema import FOOTPRINT_COORDS, PATTERN, SENSORS, SPLITS, SchemaError
from storage.shardtiles import Rejected

_ROWS = 2**14
_TEXTS = ("tile_id", "scene_id", "source", "member")
_NUMBERS = {"row": "i4", "col": "i4", "source_offset": "i8", "source_bytes": "i8"}


@dataclass(frozen=True)
class Naming:
    """What is told of all names."""

    sensor: str | None = None
    """None: by each name's first letters."""
    pattern: re.Pattern[str] | None = None
    shares: dict[str, float] = field(default_factory=lambda: {"train": 1.0})
    """Of the splits, together 1."""


def list_tiles(sources: Sources, naming: Naming) -> tuple[pa.Table, list[Rejected]]:
    """Return an index row of each input that has a name, and the others.

    Rows are in the order of the sources; `tile_id` is unique: names that are there more than once
    end in 8 digits of their place's hash.

    Raises:
        SchemaError: Tiles are to be shared out to splits, and names do not tell scenes.
    """
    parts, rejected = [], []
    rows: list[tuple[Entry, Named]] = []
    for found in _named(sources, naming):
        if isinstance(found, Rejected):
            rejected.append(found)
        else:
            rows.append(found)
        if len(rows) == _ROWS:
            parts.append(_columns(rows))
            rows = []
    parts.append(_columns(rows))
    table = pa.concat_tables(parts).combine_chunks()
    table = table.set_column(0, "tile_id", _unique(table["tile_id"].combine_chunks(), table))
    return _index(table, naming), rejected


def _named(sources: Sources, naming: Naming) -> Iterator[tuple[Entry, Named] | Rejected]:
    for entry in sources.entries():
        told = (
            (entry.source if isinstance(entry, Rejected) else str(entry))
            .encode("utf-8", "backslashreplace")
            .decode()
        )
        if isinstance(entry, Rejected):
            yield replace(entry, source=told)
            continue
        try:
            if told != str(entry):
                raise UnfitError("name", f"expected UTF-8, got {told}")
            yield entry, read_name(entry.name, naming.sensor, naming.pattern)
        except UnfitError as error:
            yield Rejected(told, error.reason, error.detail)


def _columns(rows: list[tuple[Entry, Named]]) -> pa.Table:
    columns = {
        "tile_id": [name.tile_id for _, name in rows],
        "scene_id": [name.scene_id for _, name in rows],
        "sensor": np.array([SENSORS.index(name.sensor) for _, name in rows], "i1"),
        "row": [name.row for _, name in rows],
        "col": [name.col for _, name in rows],
        "source": [entry.source for entry, _ in rows],
        "member": [entry.member for entry, _ in rows],
        "source_offset": [entry.offset for entry, _ in rows],
        "source_bytes": [entry.bytes for entry, _ in rows],
    }
    kinds = dict.fromkeys(_TEXTS, pa.large_string())
    kinds |= {name: pa.from_numpy_dtype(kind) for name, kind in _NUMBERS.items()}
    kinds["sensor"] = pa.int8()
    return pa.table({name: pa.array(column, kinds[name]) for name, column in columns.items()})


def _unique(names: pa.Array, table: pa.Table) -> pa.Array:
    """Return the tiles' names, each once.

    Raises:
        SchemaError: Two would still have one name.
    """
    twice = _repeated(names)
    if not len(twice):
        return names
    own = names.to_pylist()
    for at in twice.tolist():
        place = f"{table['source'][at]}:{table['member'][at]}:{table['source_offset'][at]}"
        own[at] = f"{own[at][: LONGEST_ID - 9]}-{_hash(place) >> 32:08x}"
    names = pa.array(own, names.type)
    if len(_repeated(names)):
        raise SchemaError("tiles must have names of their own, got two of one; rename the inputs")
    return names


def _repeated(names: pa.Array) -> np.ndarray:
    """Return the rows of names that are there more than once."""
    hashes = np.empty(len(names), np.uint64)
    for start in range(0, len(names), _ROWS):  # all texts at once would be half a gigabyte
        some = names.slice(start, _ROWS).to_pylist()
        hashes[start : start + _ROWS] = np.fromiter(map(_hash, some), np.uint64, len(some))
    _, which, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[which] > 1)


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def _index(table: pa.Table, naming: Naming) -> pa.Table:
    """Return the columns of a store's index, and where each tile is from."""
    count = len(table)
    scene = table["scene_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    scene = scene.combine_chunks() if isinstance(scene, pa.ChunkedArray) else scene
    scenes = scene.dictionary.to_pylist()
    codes = scene.indices.to_numpy()
    if len(naming.shares) > 1 and count > 1 and len(scenes) == count:
        raise SchemaError(
            f"tiles of a scene must be in one split, but each of {count} names looks like a scene "
            f"of its own, such as {scenes[0]}; say with --name what part of a name is the scene"
        )
    split = np.array([SPLITS.index(split_of(name, naming.shares)) for name in scenes], "i1")
    order = np.argsort(codes, kind="stable")
    first = np.flatnonzero(np.diff(codes[order], prepend=-1))
    position = np.empty(count, "i4")
    position[order] = np.arange(count) - np.repeat(first, np.diff(first, append=count))
    nothing = {name: np.full(count, np.nan, "f4") for name in FOOTPRINT_COORDS}
    return pa.table(
        {
            "tile_id": table["tile_id"],
            "scene_id": scene,
            "sensor": pa.DictionaryArray.from_arrays(
                table["sensor"].combine_chunks(), pa.array(SENSORS)
            ),
            "split": pa.DictionaryArray.from_arrays(pa.array(split[codes]), pa.array(SPLITS)),
            "row": table["row"],
            "col": table["col"],
            **{name: np.full(count, np.nan) for name in ("lon", "lat")},
            "position": position,
            **nothing,
            PATTERN: np.zeros(count, "u8"),
            **{name: table[name] for name in table.column_names if "source" in name},
            "member": table["member"],
            "spectral": _spectral(table["sensor"]),
        }
    )


def _spectral(sensor: pa.ChunkedArray) -> np.ndarray:
    """Return the number of each row's sensor among those that there are."""
    found = np.asarray(sensor)
    return np.searchsorted(np.asarray(pc.unique(sensor).sort()), found).astype("i2")
