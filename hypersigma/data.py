"""Shards to batches: tiles for pretraining, windows around labelled pixels for fine-tuning.

Shape letters: B batch, C bands, H rows, W columns, N pixels; S sensors in `_SC`, window side in
`_NCSS`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypersigma.inputs import SensorInput, measured, standardize
from hypersigma.loader import SYMMETRIES, TileBatch, TileLoader, turn
from hypersigma.pixels import Pixels, tile_reader, windows
from storage.stream import ShardSet, Stream, order


@dataclass(frozen=True)
class WindowBatch:
    """Windows around labelled pixels, as stored, augmented."""

    stored: Tensor
    """(N, C, S, S)"""
    wavelength: Tensor
    """Band centres (N, C) [nm]."""
    label: Tensor
    """Class (N), 0-based."""
    ids: list[str]
    """Tile, row and column in it of each pixel."""


@dataclass(frozen=True)
class Inputs:
    """A batch as a masked autoencoder takes it."""

    x: Tensor
    """(B, C, H, W) float32, standardised, 0 where there is no measurement."""
    valid: Tensor
    """(B, H, W): pixels with a measurement in any band."""
    wavelength: Tensor
    """Band centres (B, C) [nm]."""
    mean: Tensor
    """(B, C): what one predicts who knows only the sensor: the training split's mean spectrum."""


@dataclass(frozen=True)
class Scaling:
    """The spectral contracts of all sensors as tables on a device, bands padded to the longest."""

    row: dict[str, int]
    shift: Tensor
    """(S, C), see `SensorInput`."""
    spread: Tensor
    """(S, C)"""
    mean: Tensor
    """(S, C): mean spectrum of the training split, as inputs."""
    scale: Tensor
    """(S)"""

    def inputs(self, batch: TileBatch) -> Inputs:
        """Return a batch as model inputs on the tables' device."""
        device = self.shift.device
        sensor_B = torch.tensor([self.row[name] for name in batch.sensor], device=device)
        offset_C = torch.arange(batch.stored.shape[1], device=device)
        at = (sensor_B[:, None], batch.band_start.to(device)[:, None] + offset_C)
        stored_BCHW = batch.stored.to(device)
        return Inputs(
            x=standardize(stored_BCHW, self.shift[at], self.spread[at], self.scale[sensor_B]),
            valid=measured(stored_BCHW).any(dim=1),
            wavelength=batch.wavelength.to(device),
            mean=self.mean[at],
        )


def scaling(contracts: Mapping[str, SensorInput], device: torch.device) -> Scaling:
    """Put what the contracts of all sensors say of scaling on a device."""
    longest = max(contract.bands for contract in contracts.values())

    def table(rows: Iterable[Sequence[float]], fill: float) -> Tensor:
        padded = [[*row, *[fill] * (longest - len(row))] for row in rows]
        return torch.tensor(padded, dtype=torch.float32, device=device)

    values = list(contracts.values())
    shift, spread = table((c.shift for c in values), 0.0), table((c.spread for c in values), 1.0)
    return Scaling(
        row={name: number for number, name in enumerate(contracts)},
        shift=shift,
        spread=spread,
        mean=(table((c.mean for c in values), 0.0) - shift) / spread,
        scale=torch.tensor([c.scale for c in values], dtype=torch.float32, device=device),
    )


def tile_batches(
    stream: Stream,
    state: Mapping[str, Any] | None,
    *,
    augment: bool,
    workers: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Iterator[tuple[TileBatch, dict[str, Any]]]:
    """Yield a process's endless batches, each with the stream state to go on from after it.

    Processes take turns; the state after a batch is that after the round.

    Which tiles, which window of bands and which symmetry are functions of the stream's seed and
    the position in it alone, so a run goes on from a state as if it had never stopped.
    """
    if state is not None:
        stream.load_state_dict(dict(state))
    with TileLoader(
        stream, workers=workers, augment=augment, process=process, processes=processes
    ) as loader:
        for batch in loader:
            yield batch, dict(batch.after)


def window_batches(
    shards: ShardSet,
    pixels: Pixels,
    state: Mapping[str, Any] | None,
    *,
    window: int,
    batch_size: int,
    seed: int,
    process: int = 0,
    processes: int = 1,
) -> Iterator[tuple[WindowBatch, dict[str, Any]]]:
    """Yield endless batches of windows around labelled pixels, each with the state after it.

    Processes take turns; the state after a batch is that after the round.

    The order is one permutation of the pixels after another, each a function of seed and epoch;
    the state is the position in it.
    """
    read = tile_reader(shards)
    tile_ids = shards.index["tile_id"]
    begin = state["position"] if state else 0
    while True:
        position = begin + process * batch_size
        begin += processes * batch_size
        chosen = pixels.take(_endless_order(len(pixels), position, batch_size, seed))
        turns = np.random.default_rng([seed, position]).integers(0, SYMMETRIES, size=batch_size)
        places = zip(chosen.tile, chosen.y[:, None], chosen.x[:, None], turns, strict=True)
        cut = [
            turn(windows(read(int(row)), y, x, window)[0].numpy(), int(n))
            for row, y, x, n in places
        ]
        yield (
            WindowBatch(
                stored=torch.from_numpy(np.stack(cut)),
                wavelength=wavelengths(shards, chosen.tile),
                label=torch.from_numpy(chosen.label),
                ids=[
                    f"{tile_ids[int(row)].as_py()} {y} {x}"
                    for row, y, x in zip(chosen.tile, chosen.y, chosen.x, strict=True)
                ],
            ),
            {"position": begin},
        )


def wavelengths(shards: ShardSet, rows: np.ndarray) -> Tensor:
    """Return the band centres (N, C) [nm] of tiles of one sensor, float32."""
    sets = shards.index["spectral"].take(rows).to_numpy()
    centres = [shards.manifest["spectral"][number]["wavelength"] for number in sets]
    return torch.tensor(centres, dtype=torch.float32)


def _endless_order(count: int, start: int, length: int, seed: int) -> np.ndarray:
    epoch, place = np.divmod(np.arange(start, start + length), count)
    out = np.empty(length, np.int64)
    for number in np.unique(epoch).tolist():
        out[epoch == number] = order(count, seed, number)[place[epoch == number]]
    return out
