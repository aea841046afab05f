"""Shards to batches of tiles, in a seeded global order that any number of ranks can resume.

    shards = open_shards("shards")
    stream = Stream(shards, select(shards, split="train"), batch_size=64, bands=100, seed=0)
    for batch in stream: ...

NumPy alone. The order is that of `storage.sequence`; the state is (epoch, position), where
`position` counts samples over all ranks; only the bytes of a tile's band window are read. `ahead`
reads the next batches meanwhile.
"""

import functools
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from storage.batches import Batch, Samples, too_many
from storage.buffers import Buffers
from storage.payloads import Payloads
from storage.schema import TILE_SIZE, DamagedError, SchemaError
from storage.sequence import Draws, Ends, Order, Source, Steps, order, packed, unpacked
from storage.sequence import Sequence as Epochs
from storage.shardset import ShardSet, open_shards, select
from storage.windows import Windows, common_window

__all__ = [
    "Batch", "DamagedError", "Payloads", "ShardSet", "Stream", "open_shards", "order", "read_tile",
    "select",
]  # fmt: skip

logger = logging.getLogger(__name__)

DAMAGED = 16
"""Damaged samples that a stream leaves out before it stops."""
_WORD = np.uint64


class Stream:
    """An endless iterator of batches over some rows of one or several sets of shards.

    An epoch gives every row once over all ranks (see `storage.sequence` for several sets). Of a
    global batch, rank r takes samples r, r + world, r + 2 world, ...; all ranks make equally many
    steps. A tile that cannot be read is left out of its batch, named in it and in the log; the
    others stay where they are.

    Args:
        shards: An opened set, or several.
        rows: Index rows to draw from, such as `select` returns; of several sets, one array each.
        batch_size: Samples of one rank in a batch.
        bands: Width of the window of neighbouring bands, placed anew for each tile and epoch;
            None takes all bands.
        seed: Of the order and the windows.
        epoch: Where to begin.
        position: Where to begin in the epoch, see `state_dict`.
        rank: This process among `world`.
        world: Number of processes.
        order: `global` or `shard`, see `storage.sequence.Sequence`; `window` likewise.
        window: Shards that `shard` mixes.
        weights: Of several sets, see `storage.sequence.Sequence`.
        ends: `drop` or `pad`, see `storage.sequence.Steps`.
        valid: Give the store's masks, too.
        scaled: Give float32, stored / scale, NaN where there is no measurement; else the stored
            dtype, which is less to move and is soon scaled on a device.
        verify: Compare what is read with the sets' checksums.
        damaged: Tiles that may be damaged before the stream stops.
        payloads: Keeps what comes from a bucket on disk; None: nothing is kept.

    Raises:
        SchemaError: Rows whose tiles do not fit one batch (fewer bands than the window, other
            dtypes), or too few of them.
    """

    def __init__(
        self,
        shards: ShardSet | Sequence[ShardSet],
        rows: np.ndarray | Sequence[np.ndarray],
        *,
        batch_size: int,
        bands: int | None,
        seed: int,
        epoch: int = 0,
        position: int = 0,
        rank: int = 0,
        world: int = 1,
        order: Order = "global",
        window: int = 16,
        weights: Sequence[float] | None = None,
        ends: Ends = "drop",
        valid: bool = False,
        scaled: bool = False,
        verify: bool = True,
        damaged: int = DAMAGED,
        payloads: Payloads | None = None,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"expected 0 <= rank < world, got {rank=} {world=}")
        sets = [shards] if isinstance(shards, ShardSet) else list(shards)
        chosen = [rows] if isinstance(shards, ShardSet) else list(rows)
        if len(sets) != len(chosen):
            raise ValueError(f"expected rows of each of {len(sets)} sets, got {len(chosen)}")
        self._windows = [Windows(one, payloads, verify=verify, valid=valid) for one in sets]
        self._rows = [np.asarray(some, np.int64) for some in chosen]
        pairs = list(zip(self._windows, self._rows, strict=True))
        self.bands, stored = common_window(pairs, bands)
        self.dtype, self._scaled = np.dtype(np.float32) if scaled else stored, scaled
        self._how = (seed, order, window, weights)
        self._epochs = self._sequence()
        self._steps = Steps(self._epochs.length, batch_size, world, ends)
        self.seed, self.rank, self.epoch, self.position = seed, rank, epoch, position
        self.skipped: list[str] = []
        """Tiles that were damaged so far."""
        self.damaged, self._valid = damaged, valid
        self._worker, self._workers, self._turn = 0, 1, 0
        self._behind = 0
        self._draws: tuple[int, Draws] | None = None
        self._buffers = Buffers()

    @property
    def steps_per_epoch(self) -> int:
        """Batches that each rank gets in a whole epoch."""
        return self._steps.left(0)

    @property
    def batch_size(self) -> int:
        """Samples of one rank in a batch."""
        return self._steps.batch_size

    def state_dict(self) -> dict[str, int]:
        """Return where the next batch begins; valid for any rank, world and batch size."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a state of this or another stream over the same rows and seed."""
        self.epoch, self.position, self._turn = state["epoch"], state["position"], 0

    def share(self, worker: int, workers: int, *, together: int = 1) -> None:
        """Give from now on only each `workers`-th batch, beginning with number `worker`.

        Workers that start from one state and take turns give the batches of one stream.

        Args:
            worker: Of these.
            workers: All that take turns.
            together: Batches that make a round, of which each of several processes has one: the
                state after a batch is that after its round, the same for all of them.
        """
        if not 0 <= worker < workers or together < 1 or workers % together:
            raise ValueError(
                f"expected 0 <= worker < workers, in whole rounds, got {worker=} {workers=} "
                f"{together=}"
            )
        self._worker, self._workers, self._turn = worker, workers, 0
        self._behind = together - 1 - worker % together

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        while True:
            epoch, position = self._steps.start(self.epoch, self.position)
            self.epoch, self.position = epoch, position + self._steps.size
            mine = self._turn % self._workers == self._worker
            self._turn += 1
            if mine:
                return self._read(epoch, position)

    def interrupt(self) -> None:
        """Let a read in another thread that waits for a server fail at once; then `close`."""
        for windows in self._windows:
            windows.files.interrupt()

    def close(self) -> None:
        """Close the shards' files."""
        for windows in self._windows:
            windows.files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        # Another process draws its own epochs: a million rows are soon drawn and slowly sent.
        rows = [packed(some) for some in self._rows]
        return {**self.__dict__, "_draws": None, "_epochs": None, "_rows": rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rows = [unpacked(some) for some in state["_rows"]]
        self._epochs = self._sequence()

    def _sequence(self) -> Epochs:
        pairs = zip(self._windows, self._rows, strict=True)
        sources = [Source(rows, windows.shard[rows]) for windows, rows in pairs]
        return Epochs(sources, *self._how)

    def draws(self, number: int) -> Draws:
        """Return an epoch over all ranks, counted from 0."""
        if self._draws is None or self._draws[0] != number:
            self._draws = None  # or two epochs would be in memory
            self._draws = (number, self._epochs.draws(number))
        return self._draws[1]

    def _read(self, epoch: int, position: int) -> Batch:
        places, padding = self._steps.places(position, self.rank)
        draws = self.draws(epoch)
        source, rows, passes = (a[places] for a in (draws.source, draws.row, draws.epoch))
        got = Samples.empty(
            len(rows), self.bands, self.dtype, valid=self._valid, buffers=self._buffers
        )
        for number in np.unique(source).tolist():
            mine = np.flatnonzero(source == number)
            start = self._starts(number, rows[mine], passes[mine])
            got.read(self._windows[number], mine, rows[mine], start, scaled=self._scaled)
        good = np.array([error is None for error in got.errors])
        damaged = self._count(got)
        kept = got if not damaged else got.take(np.flatnonzero(good))
        return Batch(
            tiles=kept.tiles,
            band_start=kept.start,
            wavelength=kept.wavelength,
            rows=rows[good],
            tile_ids=kept.names,
            sensor=kept.sensor,
            epoch=epoch,
            position=position,
            source=source[good],
            padding=padding[good],
            valid=kept.valid,
            damaged=damaged,
            after=self._after(epoch, position),
        )

    def _after(self, epoch: int, position: int) -> dict[str, int]:
        """Return the state after the round of the batch that begins here."""
        position += self._steps.size
        for _ in range(self._behind):
            epoch, position = self._steps.start(epoch, position)
            position += self._steps.size
        return {"epoch": epoch, "position": position}

    def _starts(self, number: int, rows: np.ndarray, passes: np.ndarray) -> np.ndarray:
        """Return each row's first band, a function of (seed, pass, set, row) and nothing else."""
        lengths = [len(wavelength) for wavelength in self._windows[number].spectra(rows)]
        room = (np.array(lengths) - self.bands + 1).astype(_WORD)
        start = np.empty(len(rows), np.int64)
        for own in np.unique(passes).tolist():
            here = passes == own
            entropy = [self.seed, own, 1, *([number] if number else [])]
            word = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
            start[here] = _mix(_mix(word) + rows[here].astype(_WORD)) % room[here]
        return start

    def _count(self, got: "Samples") -> tuple[str, ...]:
        """Return the damaged tiles of a batch; say so, and stop when there were too many."""
        names = []
        for name, error in zip(got.names, got.errors, strict=True):
            if error is not None:
                names.append(name)
                logger.warning("%s is left out: %s", name, error)
        self.skipped += names
        if len(self.skipped) > self.damaged:
            last = next(error for error in reversed(got.errors) if error is not None)
            raise too_many(self.skipped, self.damaged, str(last)) from last
        return tuple(names)


def read_tile(
    shards: ShardSet, row: int, *, band_start: int = 0, bands: int | None = None
) -> np.ndarray:
    """Read one tile's window (band, y, x) in the stored dtype, and no other bytes of its shard.

    Raises:
        SchemaError: The window goes beyond the sensor's bands.
        DamagedError: The bytes are not there, or not what they were.
    """
    sensor = shards.manifest["sensors"][shards.index["sensor"][row].as_py()]
    total = len(sensor["band"])
    count = total - band_start if bands is None else bands
    if not 0 <= band_start < band_start + count <= total:
        raise SchemaError(
            f"a window must lie in the tile's {total} bands, got {count} from {band_start}"
        )
    tile = np.empty((count, TILE_SIZE, TILE_SIZE), np.dtype(sensor["dtype"]))
    (error,) = _windows(shards).read([row], [band_start], [tile])
    if error is not None:
        raise error
    return tile


@functools.lru_cache(maxsize=4)
def _windows(shards: ShardSet) -> Windows:
    return Windows(shards)


def _mix(words: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words. Source: SplitMix64, doi:10.1145/2660193.2660195."""
    z = words + _WORD(0x9E3779B97F4A7C15)
    z = (z ^ (z >> _WORD(30))) * _WORD(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> _WORD(27))) * _WORD(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> _WORD(31)))
