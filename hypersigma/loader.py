"""Tiles to torch, read by this process or by workers; same batches, same order, same state.

    with TileLoader(Stream(shards, rows, batch_size=64, bands=100, seed=0), workers=2) as loader:
        for batch in loader:
            x = batch.stored.to("cuda", non_blocking=True)   # int16: cast and scale there
            ...
        torch.save(loader.state_dict(), ...)

Which tiles, which bands and which symmetry are functions of the seed and the place in the stream
alone. Shape letters: B batch, C bands, H rows, W columns.
"""

import math
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hypersigma.signals import shielded
from hypersigma.workers import begin, dead, end
from storage.ahead import AHEAD_BYTES, ahead
from storage.batches import Batch, too_many
from storage.buffers import Buffers
from storage.schema import TILE_SIZE
from storage.stream import Stream

type Method = Literal["forkserver", "spawn", "fork"]

SYMMETRIES = 8
"""Quarter turns with and without a flip."""
_WAITING = 32
"""Batches that may wait in a worker: each holds some file descriptors, of which a process may have
1,024."""


@dataclass(frozen=True)
class TileBatch:
    """Tiles as stored, augmented, and where their bands are."""

    stored: Tensor
    """(B, C, H, W)"""
    wavelength: Tensor
    """Band centres (B, C) [nm]."""
    sensor: list[str]
    band_start: Tensor
    """First band of each window (B), counted from 0."""
    tile_ids: list[str]
    valid: Tensor | None
    """The store's mask (B, H, W), turned as the tiles; None if the stream has none."""
    padding: Tensor
    """Tiles that complete an epoch and were given before (B)."""
    damaged: tuple[str, ...]
    """Tiles that could not be read and are left out."""
    after: dict[str, int]
    """State of the stream to go on from after this batch."""

    def pin_memory(self) -> Self:
        """Return it in page-locked memory, from which a GPU copies beside its work."""
        return replace(
            self,
            stored=self.stored.pin_memory(),
            wavelength=self.wavelength.pin_memory(),
            band_start=self.band_start.pin_memory(),
            valid=None if self.valid is None else self.valid.pin_memory(),
        )


class TileLoader:
    """An endless iterator of a stream's batches.

    Workers take turns, so that the order is the stream's whatever their number. The state is that
    of the batch that was taken last: what workers have read since is read again after a resume.

    Args:
        stream: Where to read; goes on from its state.
        workers: Processes that read; 0: a thread of this one.
        method: How they are started. `fork` is refused by the first read from a bucket if this
            process had read from one before.
        augment: Turn and flip each tile.
        most: Bytes of batches that wait, over all workers.
        pin: Give batches in page-locked memory.
        process: This one among `processes`, which take turns, too: the first the first batch, and
            so on. The state is that after a round of them.
        processes: That share the stream.

    Raises:
        DamagedError: More tiles are damaged than the stream may leave out, over all workers.
        RuntimeError: A worker was killed.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        workers: int = 0,
        method: Method = "forkserver",
        augment: bool = False,
        most: int = AHEAD_BYTES,
        pin: bool = False,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.stream, self._augment = stream, augment
        self._process, self._processes = process, processes
        self._workers, self._method, self._most, self._pin = workers, method, most, pin
        self._state = stream.state_dict()
        self._running: Iterator[TileBatch] | None = None
        self._open = ExitStack()
        self.skipped: list[str] = []
        """Tiles that were damaged so far."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a whole epoch."""
        return self.stream.steps_per_epoch

    def state_dict(self) -> dict[str, int]:
        """Return the state after the batch that was taken last."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a state of this or another stream over the same rows and seed."""
        self.close()
        self._state = dict(state)

    def close(self) -> None:
        """End workers and threads; the next batch starts them again."""
        self._running = None
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[TileBatch]:
        return self

    def __next__(self) -> TileBatch:
        if self._running is None:
            self.stream.load_state_dict(self._state)
            if self._processes > 1:
                self.stream.share(self._process, self._processes, together=self._processes)
            self._running = self._by_workers() if self._workers else self._by_thread()
        try:
            batch = next(self._running)
        except (OSError, EOFError) as error:  # maybe a batch whose worker is no more there to send
            if (gone := dead(self._running)) is None:
                raise
            raise RuntimeError(f"DataLoader worker (pid {gone}) was killed") from error
        self._state = batch.after
        self.skipped += batch.damaged
        if len(self.skipped) > self.stream.damaged:
            self.close()
            raise too_many(self.skipped, self.stream.damaged)
        return batch

    def _by_thread(self) -> Iterator[TileBatch]:
        empty = partial(_own, buffers=Buffers()) if self._augment else None
        made = (_batch(got, self.stream.seed, empty, augment=self._augment) for got in self.stream)
        self._open.callback(self.stream.close)
        batches = self._open.enter_context(
            ahead(made, most=self._most, size=lambda batch: batch.stored.nbytes)
        )
        self._open.callback(self.stream.interrupt)
        return (batch.pin_memory() for batch in batches) if self._pin else batches

    def _by_workers(self) -> Iterator[TileBatch]:
        tile = self.stream.bands * TILE_SIZE**2 * self.stream.dtype.itemsize
        size = self.stream.batch_size * tile
        context = multiprocessing.get_context(self._method)
        if self._method == "forkserver":
            # Or each worker would import torch anew, 200 MB and seconds; the first server counts.
            context.set_forkserver_preload([__name__])
        loader = DataLoader(
            _Turns(self.stream, self._process, self._processes, augment=self._augment),
            batch_size=None,
            num_workers=self._workers,
            multiprocessing_context=context,
            prefetch_factor=min(max(1, self._most // size // self._workers), _WAITING),
            pin_memory=self._pin,
            worker_init_fn=begin,
        )
        with shielded():
            batches = iter(loader)
        self._open.callback(end, batches)
        return batches


class _Turns(IterableDataset[TileBatch]):
    """In a worker: its share of the stream's batches."""

    def __init__(self, stream: Stream, process: int, processes: int, *, augment: bool) -> None:
        self._stream, self._augment = stream, augment
        self._process, self._processes = process, processes

    def __iter__(self) -> Iterator[TileBatch]:
        worker = get_worker_info()
        if worker is not None:
            number = self._process + self._processes * worker.id
            total = self._processes * worker.num_workers
            self._stream.share(number, total, together=self._processes)
        for got in self._stream:
            yield _batch(got, self._stream.seed, _shared, augment=self._augment)


def turn(tile: np.ndarray, number: int) -> np.ndarray:
    """Return a view by one of the eight symmetries of the square's last two axes; 0: as it is."""
    turned = np.rot90(tile, number % 4, axes=(-2, -1))
    return turned[..., ::-1] if number >= 4 else turned


type _Empty = Callable[[tuple[int, ...], np.dtype[Any]], Tensor]
"""Where tiles are turned to."""


def _own(shape: tuple[int, ...], dtype: np.dtype[Any], buffers: Buffers) -> Tensor:
    return torch.from_numpy(buffers.empty(shape, dtype))


def _shared(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """Return a tensor that a worker sends without copying it once more."""
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.from_numpy(np.empty(0, dtype)).new_empty(0).set_(storage).view(shape)


def _batch(got: Batch, seed: int, empty: _Empty | None, *, augment: bool) -> TileBatch:
    """Return a batch for torch.

    Args:
        got: Of the stream.
        seed: Of the symmetries.
        empty: Makes the tensor that the tiles come to; None: they may stay where they are.
        augment: Turn and flip each tile.
    """
    tiles, valid = got.tiles, got.valid
    turns = np.zeros(len(tiles), np.int64)
    if augment:
        rng = np.random.default_rng([seed, got.epoch, got.position])
        turns = rng.integers(0, SYMMETRIES, size=len(tiles))
        valid = None if valid is None else _turned(valid, turns, np.empty_like(valid))
    if empty is None:
        stored = torch.from_numpy(tiles)
    else:
        stored = empty(tiles.shape, tiles.dtype)
        _turned(tiles, turns, stored.numpy())
    return TileBatch(
        stored=stored,
        wavelength=torch.from_numpy(got.wavelength),
        sensor=got.sensor,
        band_start=torch.from_numpy(got.band_start),
        tile_ids=got.tile_ids,
        valid=None if valid is None else torch.from_numpy(valid),
        padding=torch.from_numpy(got.padding),
        damaged=got.damaged,
        after=got.after,
    )


def _turned(images: np.ndarray, turns: np.ndarray, into: np.ndarray) -> np.ndarray:
    for image, number, target in zip(images, turns.tolist(), into, strict=True):
        target[...] = turn(image, number)
    return into
