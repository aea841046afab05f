"""What reading only a window of bands is worth, beside stock WebDataset.

The same tiles of the demo's shards, the same 100 bands, one process, one run; compared first.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import webdataset

from storage.stream import ShardSet, open_shards, read_tile, select

SHARDS, WINDOW, PASSES = Path("demo/shards"), 100, 3


def main() -> int:
    """Read the training tiles of one sensor in two ways; print tiles a second and the ratio."""
    if not (SHARDS / "manifest.json").is_file():
        sys.stderr.write(f"no shards in {SHARDS}; `make demo` writes them\n")
        return 1
    shards = open_shards(SHARDS)
    rows = select(shards, split="train", sensor="hyperion")
    tars = sorted(str(tar) for tar in (SHARDS / "train").glob("hyperion-*.tar"))
    ways: dict[str, Callable[[], Iterator[np.ndarray]]] = {
        "stock webdataset, whole tiles": lambda: whole_tiles(tars),
        "storage.stream, window of bands": lambda: windows(shards, rows),
    }
    read = [list(way()) for way in ways.values()]
    assert len(read[0]) == len(rows)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*read, strict=True))
    rates = {name: rate(way) for name, way in ways.items()}
    slowest = min(rates.values())
    print("A window of 100 bands of the demo's training tiles")
    for name, tiles_per_second in rates.items():
        print(f"{name:32s} {tiles_per_second:8.0f} tiles/s  x{tiles_per_second / slowest:.1f}")
    return 0


def whole_tiles(tars: list[str]) -> Iterator[np.ndarray]:
    """Yield the first bands of each tile through stock WebDataset."""
    for sample in webdataset.WebDataset(tars, shardshuffle=False).decode():
        yield sample["tile.npy"][:WINDOW].astype(np.float32)


def windows(shards: ShardSet, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the first bands of each tile by reading just their bytes."""
    for row in rows:
        yield read_tile(shards, int(row), bands=WINDOW).astype(np.float32)


def rate(way: Callable[[], Iterator[np.ndarray]]) -> float:
    """Return tiles a second, the best of some passes."""
    best = 0.0
    for _ in range(PASSES):
        started = time.perf_counter()
        count = sum(1 for _ in way())
        best = max(best, count / (time.perf_counter() - started))
    return best
