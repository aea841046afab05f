"""Shards to batches of tiles, in a seeded global order that any number of ranks can resume.

    shards = open_shards("shards")
    stream = Stream(shards, select(shards, split="train"), batch_size=64, bands=100, seed=0)
    for batch in stream: ...

NumPy alone. The order is a permutation of the rows; the state is (epoch, position), where
`position` counts samples over all ranks; only the bytes of a tile's band window are read.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from storage.schema import TILE_SIZE, SchemaError
from storage.shardset import ShardSet, codes, open_shards, select

__all__ = ["Batch", "ShardSet", "Stream", "open_shards", "order", "read_tile", "select"]

OPEN_FILES = 128
_WORD = np.uint64


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch."""

    tiles: np.ndarray
    """(sample, band, y, x) in the stored dtype."""

    band_start: np.ndarray
    """First band of each sample's window (sample), counted from 0 in the sensor's list."""

    wavelength: np.ndarray
    """Of each sample's bands (sample, band) [nm], float32."""

    rows: np.ndarray
    """Index rows (sample)."""

    tile_ids: list[str]
    sensor: list[str]
    epoch: int
    position: int
    """Samples of the epoch, over all ranks, that come before this global batch."""


class Stream:
    """An endless iterator of batches over some rows of a set of shards.

    An epoch gives every row once over all ranks, but for a tail that is shorter than a global
    batch (`world * batch_size`): it is left out, so that all ranks make equally many steps. Of a
    global batch, rank r takes samples r, r + world, r + 2 world, ...

    Args:
        shards: An opened set.
        rows: Index rows to draw from, such as `select` returns.
        batch_size: Samples of one rank in a batch.
        bands: Width of the window of neighbouring bands, placed anew for each tile and epoch;
            None takes all bands.
        seed: Of the order and the windows.
        epoch: Where to begin.
        position: Where to begin in the epoch, see `state_dict`.
        rank: This process among `world`.
        world: Number of processes.

    Raises:
        SchemaError: Rows whose tiles do not fit one batch (fewer bands than the window, other
            dtypes), or too few of them.
    """

    def __init__(
        self,
        shards: ShardSet,
        rows: np.ndarray,
        *,
        batch_size: int,
        bands: int | None,
        seed: int,
        epoch: int = 0,
        position: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not 0 <= rank < world or batch_size < 1:
            raise ValueError(f"expected 0 <= rank < world, got {rank=} {world=} {batch_size=}")
        self.shards = shards
        self.rows = np.asarray(rows, dtype=np.int64)
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.epoch, self.position = epoch, position
        if len(self.rows) < self._step:
            raise SchemaError(
                f"an epoch must have at least batch_size x world = {self._step} tiles, "
                f"got {len(self.rows)}; take a smaller batch_size"
            )
        self.bands, self.dtype = _window(shards, self.rows, bands)
        self._files = _Files(shards.root)
        self._shard, self._shard_names = codes(shards, "shard")
        self._sensor, self._sensor_names = codes(shards, "sensor")
        self._offset = shards.index["offset"].to_numpy()
        self._spectral = shards.index["spectral"].to_numpy()
        self._wavelength = [
            np.array(entry["wavelength"], np.float32) for entry in shards.manifest["spectral"]
        ]
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches that each rank gets in a whole epoch."""
        return len(self.rows) // self._step

    def state_dict(self) -> dict[str, int]:
        """Return where the next batch begins; valid for any rank, world and batch size."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a state of this or another stream over the same rows and seed."""
        self.epoch, self.position = state["epoch"], state["position"]

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self.position + self._step > len(self.rows):
            self.epoch, self.position = self.epoch + 1, 0
        epoch, position = self.epoch, self.position
        drawn = self._permutation(epoch)[position + self.rank : position + self._step : self.world]
        self.position += self._step
        return self._read(self.rows[drawn], epoch, position)

    def close(self) -> None:
        """Close the shards' files."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _step(self) -> int:
        return self.batch_size * self.world

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, order(len(self.rows), self.seed, epoch))
        return self._order[1]

    def _read(self, rows: np.ndarray, epoch: int, position: int) -> Batch:
        spectra = [self._wavelength[number] for number in self._spectral[rows]]
        room = np.array([len(wavelength) for wavelength in spectra]) - self.bands + 1
        start = _band_starts(rows, room, self.seed, epoch)
        shape = (len(rows), self.bands, TILE_SIZE, TILE_SIZE)
        tiles = np.empty(shape, self.dtype)
        band_bytes = TILE_SIZE**2 * self.dtype.itemsize
        for i, (row, first) in enumerate(zip(rows.tolist(), start.tolist(), strict=True)):
            name = self._shard_names[self._shard[row]]
            self._files.read_into(name, int(self._offset[row]) + first * band_bytes, tiles[i])
        windows = zip(spectra, start.tolist(), strict=True)
        return Batch(
            tiles=tiles,
            band_start=start,
            wavelength=np.stack([w[first : first + self.bands] for w, first in windows]),
            rows=rows,
            tile_ids=self.shards.index["tile_id"].take(rows).to_pylist(),
            sensor=[self._sensor_names[code] for code in self._sensor[rows]],
            epoch=epoch,
            position=position,
        )


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation of `count` samples in an epoch, the same on every machine.

    Sorts the raw words of a bit generator, which NumPy keeps the same in all its versions; the
    methods of its `Generator` are free to change.
    """
    words = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(count)
    return np.argsort(words, kind="stable")


def read_tile(
    shards: ShardSet, row: int, *, band_start: int = 0, bands: int | None = None
) -> np.ndarray:
    """Read one tile's window (band, y, x) in the stored dtype, and no other bytes of its shard.

    Raises:
        SchemaError: The window goes beyond the sensor's bands, or the shard is cut short.
    """
    sensor = shards.manifest["sensors"][shards.index["sensor"][row].as_py()]
    total = len(sensor["band"])
    count = total - band_start if bands is None else bands
    if not 0 <= band_start < band_start + count <= total:
        raise SchemaError(
            f"a window must lie in the tile's {total} bands, got {count} from {band_start}"
        )
    dtype = np.dtype(sensor["dtype"])
    tile = np.empty((count, TILE_SIZE, TILE_SIZE), dtype)
    offset = shards.index["offset"][row].as_py() + band_start * TILE_SIZE**2 * dtype.itemsize
    files = _Files(shards.root)
    try:
        files.read_into(shards.index["shard"][row].as_py(), offset, tile)
    finally:
        files.close()
    return tile


class _Files:
    """The shards' files that were read last, open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: OrderedDict[str, int] = OrderedDict()

    def read_into(self, name: str, offset: int, target: np.ndarray) -> None:
        """Fill `target` (contiguous) with the bytes at `offset`."""
        view = memoryview(target).cast("B")
        done = 0
        while done < len(view):
            got = os.preadv(self._file(name), [view[done:]], offset + done)
            if not got:
                raise SchemaError(
                    f"{self._root / name} ends before byte {offset + len(view)}: cut short since "
                    "it was opened; write the set again with `hypersigma-data shards`"
                )
            done += got

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens its own.
        return _Files, (self._root,)

    def __del__(self) -> None:
        self.close()

    def _file(self, name: str) -> int:
        if name not in self._open:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[name] = os.open(self._root / name, os.O_RDONLY)
        self._open.move_to_end(name)
        return self._open[name]


def _window(shards: ShardSet, rows: np.ndarray, bands: int | None) -> tuple[int, np.dtype[Any]]:
    """Return the bands and the dtype of a batch, checked against all sensors of the rows."""
    sensor, names = codes(shards, "sensor")
    chosen = {
        names[code]: shards.manifest["sensors"][names[code]] for code in np.unique(sensor[rows])
    }
    widths = {name: len(entry["band"]) for name, entry in chosen.items()}
    dtypes = {name: entry["dtype"] for name, entry in chosen.items()}
    if len(set(dtypes.values())) > 1:
        raise SchemaError(f"tiles of a batch must have one dtype, got {dtypes}; select a sensor")
    if bands is None and len(set(widths.values())) > 1:
        raise SchemaError(
            f"tiles of a batch must have equally many bands, got {widths}; "
            "give `bands`, or select a sensor"
        )
    count = min(widths.values()) if bands is None else bands
    if not 1 <= count <= min(widths.values()):
        raise SchemaError(
            f"bands must be from 1 to {min(widths.values())}, got {count}; "
            f"the sensors of the selection have {widths}"
        )
    return count, np.dtype(next(iter(dtypes.values())))


def _band_starts(rows: np.ndarray, room: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return each row's first band in [0, room), a hash of (seed, epoch, row) and nothing else."""
    words = np.random.SeedSequence([seed, epoch, 1]).generate_state(1, np.uint64)
    return (_mix(_mix(words) + rows.astype(_WORD)) % room.astype(_WORD)).astype(np.int64)


def _mix(words: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words. Source: SplitMix64, doi:10.1145/2660193.2660195."""
    z = words + _WORD(0x9E3779B97F4A7C15)
    z = (z ^ (z >> _WORD(30))) * _WORD(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> _WORD(27))) * _WORD(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> _WORD(31)))
