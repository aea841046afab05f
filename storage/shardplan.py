"""Which tiles go to which shard, in what order: known before a pixel is read."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr

from storage.frames import check_cast
from storage.index import read_index
from storage.nodes import plain
from storage.schema import PATTERN, SchemaError
from storage.shardoptions import ShardOptions
from storage.spectra import Spectra, read_spectra


@dataclass(frozen=True)
class Task:
    """One shard to be made."""

    name: str
    records: list[dict[str, Any]]
    """Of each tile, what its `meta.json` says."""

    @property
    def split(self) -> str:
        """The first part of its name."""
        return self.name.split("/")[0]

    @property
    def sensor(self) -> str:
        """What is before the number in its name."""
        return self.name.split("/")[1].rpartition("-")[0]


@dataclass(frozen=True)
class Plan:
    """All shards of a set."""

    table: pa.Table
    """The index of the chosen tiles in the order of the set, with `spectral`."""
    spectra: Spectra
    shards: list[tuple[str, range]]
    """Names, and rows of the table."""

    def tasks(self) -> Iterator[Task]:
        """Yield one shard after the other, its tiles' metadata made when it is asked for."""
        for name, rows in self.shards:
            yield Task(name, self.table.slice(rows.start, len(rows)).to_pylist())


def make_plan(group: zarr.Group, options: ShardOptions, tag: str) -> Plan:
    """Choose, sort and count the tiles of an opened version; reads no pixels.

    Raises:
        SchemaError: No tile is chosen, or scenes of a sensor are unlike.
    """
    table = _chosen(group, options, tag).combine_chunks()
    scene, sensor = (table[name].combine_chunks() for name in ("scene_id", "sensor"))
    codes, first = np.unique(scene.indices.to_numpy(), return_index=True)
    names = scene.dictionary.take(pa.array(codes)).to_pylist()
    spectra = read_spectra(
        group, list(zip(names, sensor.take(pa.array(first)).to_pylist(), strict=True))
    )
    for name, entry in spectra.sensors.items():
        check_cast(entry["dtype"], options.dtype, name)
    numbers = np.zeros(len(scene.dictionary), np.int16)
    numbers[codes] = [spectra.numbers[name] for name in names]
    table = table.append_column("spectral", pa.array(numbers[scene.indices.to_numpy()]))
    return plan_of(table, spectra, options)


def plan_of(table: pa.Table, spectra: Spectra, options: ShardOptions) -> Plan:
    """Share tiles out to shards.

    Args:
        table: As `Plan.table`, in any order: that of tiles of a split and a sensor stays.
        spectra: Their sensors.
        options: Which say how many tiles a shard has.
    """
    table = _ordered(table)
    return Plan(table, spectra, list(_shards(table, spectra, options)))


def meta_bytes(record: dict[str, Any]) -> bytes:
    """Return a tile's `meta.json`; its spectral hash is text, since most readers have 63 bits."""
    told = {**record, PATTERN: f"{record[PATTERN]:016x}"}
    return json.dumps(plain(told), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _chosen(group: zarr.Group, options: ShardOptions, tag: str) -> pa.Table:
    table = read_index(group)
    if not len(table):
        raise SchemaError(f"version {tag} has no tiles, so there are no shards to write")
    keep = np.asarray(pc.is_in(table["split"].cast(pa.string()), pa.array(options.splits)))
    if options.where is not None:
        met = np.zeros(len(table), bool)
        met[options.where.choose(group, table)] = True
        keep = keep & met
    if not keep.any():
        condition = "" if options.where is None else f" and {options.where.text}"
        raise SchemaError(
            f"none of the {len(table)} tiles of version {tag} is in {', '.join(options.splits)}"
            f"{condition}, so there are no shards to write; ask `hypersigma-data query` what there "
            "is"
        )
    return table if keep.all() else table.take(np.flatnonzero(keep))


def _ordered(table: pa.Table) -> pa.Table:
    """Sort by split and sensor, keeping the version's own order of tiles within."""
    ranks = [table[name].combine_chunks().indices.to_numpy() for name in ("sensor", "split")]
    return table.take(np.lexsort(ranks)).combine_chunks()


def _shards(
    table: pa.Table, spectra: Spectra, options: ShardOptions
) -> Iterator[tuple[str, range]]:
    split, sensor = (table[name].combine_chunks() for name in ("split", "sensor"))
    key = split.indices.to_numpy().astype(np.int64) * 1000 + sensor.indices.to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(key)) + 1).tolist(), len(key)]
    for start, stop in itertools.pairwise(edges):
        entry = spectra.sensors[sensor[start].as_py()]
        size = options.tiles_in_shard(len(entry["band"]), entry["dtype"])
        for number, first in enumerate(range(start, stop, size)):
            name = f"{split[start]}/{sensor[start]}-{number:06d}.tar"
            yield name, range(first, min(first + size, stop))
