"""Tiles in files that somebody else wrote, as shards are made from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash

from pipeline.foreign.arrays import UnfitError, measured, read_array, stored, without
from pipeline.foreign.listing import where
from storage.shardtiles import Rejected, Tile


@dataclass(frozen=True)
class ForeignTiles:
    """Files below one folder; both where tiles come from and the tiles."""

    root: Path
    key: str
    """Of the variable in MATLAB files."""
    bands: dict[str, int]
    """By sensor, how many a tile must have."""
    dtypes: dict[str, str]
    """By sensor, what is stored."""
    nodata: float | None = None
    """A value that stands for no measurement; 0 is stored for it."""

    def open(self) -> Self:
        """Return the same: files are opened one by one."""
        return self

    def contents(self, records: list[dict[str, Any]]) -> Iterator[bytes]:
        """Yield a hash of each file's or member's bytes, and of what is made of them."""
        for record in records:
            sensor = record["sensor"]
            made = f"{self.key} {self.bands[sensor]} {self.dtypes[sensor]} "
            made += "" if self.nodata is None else f"{self.nodata!r} "
            yield made.encode() + xxhash.xxh3_128_digest(self._payload(record))

    def read(self, records: list[dict[str, Any]]) -> Iterator[Tile | Rejected]:
        for record in records:
            try:
                pixels = stored(self.array(record), self.dtypes[record["sensor"]])
                valid = measured(pixels)
                if not valid.any():
                    raise UnfitError("no data", "expected pixels, got a tile of 0 or NaN alone")
                yield Tile(record, pixels, valid)
            except UnfitError as error:
                at = where(record["source"], record["member"])
                yield Rejected(at, error.reason, error.detail)

    def array(self, record: dict[str, Any]) -> np.ndarray:
        """Return a tile's values (band, y, x) as they came, 0 where they are `nodata`.

        Raises:
            UnfitError: There is none, or one of other bands.
        """
        name = record["member"] or record["source"]
        found = read_array(self._payload(record), name[-3:].lower(), self.key)
        count = self.bands[record["sensor"]]
        if len(found) != count:
            raise UnfitError(
                "bands", f"expected {count} bands of {record['sensor']}, got {len(found)}"
            )
        return found if self.nodata is None else without(found, self.nodata)

    def _payload(self, record: dict[str, Any]) -> bytes:
        with (self.root / record["source"]).open("rb") as file:
            file.seek(record["source_offset"])
            return bytes(file.read(record["source_bytes"]))
