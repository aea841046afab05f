"""Ways from tiles on disk to float32 batches on one core, in our environment; see `loader`."""

import itertools
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.turns import BANDS, BATCH, SCALE, TILES, WINDOW, WORK, serve, truth
from hypersigma.loader import TileLoader
from storage.stream import Stream, open_shards, select

type Way = Callable[[int], Iterator[Tensor]]

_BUFFER = 100
"""Samples that stock WebDataset mixes."""


def _stream() -> Stream:
    shards = open_shards(WORK / "shards")
    return Stream(
        shards, select(shards), batch_size=BATCH, bands=WINDOW, seed=0, scaled=True
    )  # each band is compared with its checksum


def ours() -> Way:
    """Return what gives the next epoch of a stream."""
    stream = _stream()
    tiles = (torch.from_numpy(batch.tiles) for batch in stream)
    return lambda _: itertools.islice(tiles, stream.steps_per_epoch)


def ahead() -> Way:
    """Return what gives the next epoch of a `TileLoader`, whose thread reads one batch ahead."""
    loader = TileLoader(_stream(), most=1)
    tiles = (batch.stored for batch in loader)
    return lambda _: itertools.islice(tiles, loader.steps_per_epoch)


def limit(epoch: int) -> Iterator[Tensor]:
    """Yield random windows of one memory-mapped array, in a random order, to the same memory."""
    rng, tiles = np.random.default_rng(epoch), truth()
    batch = np.empty((BATCH, WINDOW, 64, 64), np.float32)
    for some in rng.permutation(TILES).reshape(-1, BATCH):
        for place, number in enumerate(some):
            start = rng.integers(BANDS - WINDOW + 1)
            np.multiply(tiles[number, start : start + WINDOW], SCALE, out=batch[place])
        yield torch.from_numpy(batch)


class _MatFiles(Dataset[Tensor]):
    def __init__(self) -> None:
        self._files = sorted((WORK / "mat").glob("*.mat"))
        rng = np.random.default_rng(0)
        self._starts = rng.integers(BANDS - WINDOW + 1, size=len(self._files))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> Tensor:
        import scipy.io

        tile = scipy.io.loadmat(self._files[number])["img"]
        start = self._starts[number]
        return torch.from_numpy(tile[start : start + WINDOW].astype(np.float32) / 4000)


def reference(epoch: int) -> Iterator[Tensor]:
    """Yield an epoch as the published code reads it: a .mat file a tile, torch's own loader."""
    return iter(DataLoader(_MatFiles(), batch_size=BATCH, shuffle=True))


def webdataset(epoch: int) -> Iterator[Tensor]:
    """Yield an epoch of our tars through stock WebDataset; what is not used is not decoded."""
    import webdataset as wds

    tars = sorted(str(tar) for tar in (WORK / "shards/train").glob("*.tar"))
    rng = np.random.default_rng(epoch)

    def window(sample: dict[str, np.ndarray]) -> Tensor:
        start = rng.integers(BANDS - WINDOW + 1)
        return torch.from_numpy(np.multiply(sample["tile.npy"][start : start + WINDOW], SCALE))

    samples = wds.WebDataset(tars, shardshuffle=len(tars), seed=epoch)
    windows = samples.shuffle(_BUFFER).decode(only=["tile.npy"]).map(window)
    return iter(windows.batched(BATCH, collation_fn=torch.stack))


WAYS: dict[str, Callable[[], Way]] = {
    "ours": ours,
    "ahead": ahead,
    "limit": lambda: limit,
    "reference": lambda: reference,
    "webdataset": lambda: webdataset,
}

if __name__ == "__main__":
    serve(WAYS[sys.argv[1]]())
