"""A set in a bucket (SeaweedFS on loopback), beside the same ranges in a plain loop of requests.

- plain: obstore, as many requests at a time as the stream has, no batches, nothing checked or kept.
- ours: the stream's batches as stored, each band compared with its checksum.

Each round gets an epoch of its own, whose windows no way has asked for.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import obstore
from obstore.store import ObjectStore

from storage.location import files_at
from storage.requests import CONCURRENCY
from storage.shards import ShardOptions, write_shards
from storage.stream import ShardSet, Stream, open_shards, select
from tests import compose
from tests.integration import services
from tests.storage.tiles import build, make_store, make_tiles

TILES, BANDS, WINDOW, BATCH = 256, 175, 100, 32
BAND_BYTES = 8192
ROUNDS = 9
BAR = 0.7

type Way = Callable[[], None]


def main() -> int:
    """Measure in turn and print MB/s and ratios."""
    from scripts.make_env import new_values

    filled = compose.filled(new_values())
    with tempfile.TemporaryDirectory() as made, services.objects(filled, Path(made)) as env:
        os.environ.update(env, HYPERSIGMA_CACHE=f"{made}/cache")
        location = f"s3://{services.bucket(filled)}/set"
        scenes = [make_tiles(f"s{n}", 32, BANDS, seed=n) for n in range(TILES // 32)]
        build(make_store(Path(made) / "store"), *scenes)
        write_shards(Path(made) / "store", location, options=ShardOptions(tiles_per_shard=64))
        shutil.rmtree(Path(made) / "store")
        rates = measured(open_shards(location))
    print(f"A bucket on loopback, windows of {WINDOW} bands, {CONCURRENCY} requests at a time")
    for name, found in rates.items():
        print(f"{name:6s} {median(found):6.0f} MB/s ({min(found):.0f} to {max(found):.0f})")
    pairs = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
    print(f"ours / plain {median(pairs):.0%}, wanted {BAR:.0%}")
    return 0


def measured(shards: ShardSet) -> dict[str, list[float]]:
    """Return each way's MB/s in each round."""
    rows = select(shards)
    stream = Stream(shards, rows, batch_size=BATCH, bands=WINDOW, seed=0)
    objects = files_at(str(shards.root))
    ways: dict[str, Way] = {
        "plain": lambda: asyncio.run(requests(objects, shards)),
        "ours": lambda: take(stream, len(rows) // BATCH),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            rate = len(rows) * WINDOW * BAND_BYTES / (time.perf_counter() - began) / 1e6
            if number:  # the first round opens connections
                rates[name].append(rate)
    stream.close()
    return rates


def take(batches: Stream, count: int) -> None:
    """Take some batches."""
    for _ in range(count):
        next(batches)


async def requests(objects: ObjectStore, shards: ShardSet) -> None:
    """Get one random window of each tile."""
    rng = np.random.default_rng()
    starts = rng.integers(BANDS - WINDOW + 1, size=TILES) * BAND_BYTES
    names = shards.index["shard"].to_pylist()
    offsets = shards.index["offset"].to_numpy() + starts
    at_once = asyncio.Semaphore(CONCURRENCY)

    async def one(row: int) -> int:
        async with at_once:
            got = await obstore.get_range_async(
                objects, names[row], start=int(offsets[row]), length=WINDOW * BAND_BYTES
            )
            return len(got)

    sizes = await asyncio.gather(*(one(int(row)) for row in rng.permutation(TILES)))
    assert sum(sizes) == TILES * WINDOW * BAND_BYTES


if __name__ == "__main__":
    sys.exit(main())
