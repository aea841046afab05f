"""A finished set that shards are taken from: what it knows of each of them."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from storage.places import Place, place_of
from storage.schema import SchemaError
from storage.shardrecords import Columns, Finished, save_record
from storage.shardset import CHECKSUMS, MASKS, SUMS, check_tables, open_shards
from storage.shardwork import Done, Work, shard_entry


@dataclass(frozen=True)
class Source:
    """Another set, opened."""

    place: Place
    entries: dict[str, dict[str, Any]]
    """Of its manifest, by content."""
    starts: dict[str, tuple[int, int]]
    """By a shard's name, its first row and its number."""
    offsets: dict[str, np.ndarray]
    """Columns of its index."""
    bands: dict[str, int]
    """By sensor."""
    codec: str

    @classmethod
    def open(cls, out: Path | str) -> Self:
        """Open a finished set; its shards are checked when they are taken.

        Raises:
            SchemaError: It is none, or has not the tables that are needed.
        """
        shards = open_shards(out)
        if "sums" not in shards.manifest:
            raise SchemaError(f"{out} has no {SUMS}, so nothing can be taken from it; leave it out")
        check_tables(out, shards.manifest)
        starts, first = {}, 0
        for number, entry in enumerate(shards.manifest["shards"]):
            starts[entry["name"]] = first, number
            first += entry["samples"]
        names = ("offset", "length", "label_offset")
        return cls(
            place=place_of(out),
            entries={entry["content"]: entry for entry in shards.manifest["shards"]},
            starts=starts,
            offsets={name: shards.index[name].to_numpy() for name in names},
            bands={n: len(entry["band"]) for n, entry in shards.manifest["sensors"].items()},
            codec=shards.manifest["options"]["codec"],
        )

    def save_record(self, work: Work, done: Done) -> None:
        """Write the record of a shard that was taken from here."""
        if done.taken is None:
            raise ValueError(f"{done.name} was not taken from another set")
        name = done.taken["name"]
        first, number = self.starts[name]
        rows = slice(first, first + done.samples)
        bands = self.bands[done.taken["sensor"]]
        width = bands if self.codec == "none" else 1
        columns = Columns(
            number=np.arange(done.samples),
            **{key: column[rows] for key, column in self.offsets.items()},
            checksums=_rows(self.place, CHECKSUMS, rows)[:, :width],
            masks=_rows(self.place, MASKS, rows),
            labels=np.frombuffer(done.labels, np.uint8).reshape(-1, 32),
            moments=_rows(self.place, SUMS, slice(number, number + 1))[0, :, :bands],
        )
        save_record(work.place, Finished(shard_entry(done.name, done.taken), columns))


def _rows(place: Place, name: str, rows: slice) -> np.ndarray:
    """Return some rows of an npy file, and read no others."""
    start = io.BytesIO(place.read(name, 0, 1024))
    np.lib.format.read_magic(start)
    shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    size = dtype.itemsize * int(np.prod(shape[1:]))
    count = rows.stop - rows.start
    data = place.read(name, start.tell() + rows.start * size, count * size)
    return np.frombuffer(data, dtype).reshape(count, *shape[1:])
