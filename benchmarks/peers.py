"""Other loaders, each as its documentation recommends; runs in their own environment, see `loader`.

Both hold whole samples: a window of bands is cut of a tile that was read to its end.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.turns import BANDS, BATCH, SCALE, TILES, WINDOW, WORK, serve, truth

_CHUNK_BYTES = 64 * 2**20
"""What both take or advise."""


def _window(tile: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    start = rng.integers(BANDS - WINDOW + 1)
    return torch.from_numpy(np.multiply(tile[start : start + WINDOW], SCALE))


def _tile(number: int) -> dict[str, Any]:
    return {"img": np.array(truth()[number])}


def write_litdata(folder: Path) -> None:
    """Write all tiles as LitData's chunks."""
    import litdata

    litdata.optimize(
        _tile, list(range(TILES)), str(folder), chunk_bytes=_CHUNK_BYTES, num_workers=1
    )


def read_litdata(folder: Path) -> Callable[[int], Iterator[Any]]:
    """Return what gives an epoch of LitData's streaming dataset."""
    import litdata

    class Windows(litdata.StreamingDataset):
        rng = np.random.default_rng(0)

        def __getitem__(self, index: Any) -> torch.Tensor:
            return _window(super().__getitem__(index)["img"], self.rng)

    dataset = Windows(str(folder), shuffle=True, drop_last=False)
    loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)
    return lambda _: iter(loader)


def write_mosaic(folder: Path) -> None:
    """Write all tiles as MosaicML's shards, of a column whose shape and dtype are fixed."""
    from streaming import MDSWriter

    columns = {"img": f"ndarray:int16:{BANDS},64,64"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=_CHUNK_BYTES) as writer:
        for number in range(TILES):
            writer.write(_tile(number))


def read_mosaic(folder: Path) -> Callable[[int], Iterator[Any]]:
    """Return what gives an epoch of MosaicML's streaming dataset."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Windows(StreamingDataset):
        rng = np.random.default_rng(0)

        def __getitem__(self, at: Any) -> torch.Tensor:
            return _window(super().__getitem__(at)["img"], self.rng)

    clean_stale_shared_memory()
    dataset = Windows(local=str(folder), shuffle=True, batch_size=BATCH)
    return lambda _: iter(DataLoader(dataset, batch_size=BATCH))


PEERS = {"litdata": (write_litdata, read_litdata), "mosaic": (write_mosaic, read_mosaic)}

if __name__ == "__main__":
    write, read = PEERS[sys.argv[1]]
    place = WORK / sys.argv[1]
    if not (place / "index.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        write(place)
    serve(read(place))
