"""What a reading worker holds, by the tiles and shards of its set: of its own, and its share.

Sets of zeros of 100 bands; each is read in a fresh process by two workers, in batches of 32. Of a
worker's memory `own` (USS) is what no other process has, and `share` (PSS) has its part of what
several have, too: libraries, the mapped tables, and batches that are on their way.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

WORK = Path("build/bench/memory")
SETS = {"ten_thousand": (10_000, 40), "a_million": (1_000_000, 4_000)}
BANDS, BATCH, WORKERS, BATCHES = 100, 32, 2, 24
EPOCHS, EPOCH_TILES = 10, 640
MOST_MB = 400
KINDS = ("own", "share")


def main() -> int:
    """Measure and print MB."""
    from tests.storage.sets import make_large_set

    found = {}
    for name, (tiles, shards) in SETS.items():
        if not (WORK / name / "manifest.json").exists():
            make_large_set(WORK / name, tiles, BANDS, shards)
        found[name] = [max(one) for one in child(name, str(BATCHES), "1")]
        own, share = found[name]
        print(f"{tiles:9,d} tiles in {shards:5,d} shards: a worker has {own:4.0f} MB of its own, "
              f"{share:4.0f} MB with its share of {MOST_MB}")  # fmt: skip
    more = found["a_million"][0] - found["ten_thousand"][0]
    print(f"a million tiles cost a worker {more:.0f} MB of its own")
    second, last = (sum(one) for one in zip(*child("ten_thousand", str(EPOCHS), "0"), strict=True))
    print(f"all processes after epoch 2: {second:.0f} MB, after epoch {EPOCHS}: {last:.0f} MB")
    return 0


def child(*arguments: str) -> list[list[float]]:
    """Return what `measure` prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(name: str, count: str, once: str) -> None:
    """Print as JSON what workers have after some batches, or all processes after epochs."""
    from hypersigma.loader import TileLoader
    from storage.stream import Stream, open_shards, select

    shards = open_shards(WORK / name)
    rows = select(shards)
    rows = rows if once == "1" else rows[:EPOCH_TILES]
    stream = Stream(shards, rows, batch_size=BATCH, bands=BANDS, seed=0)
    with TileLoader(stream, workers=WORKERS, augment=True) as loader:
        if once == "1":
            for _ in range(int(count)):
                next(loader)
            print(json.dumps(list(zip(*workers(), strict=True))))
            return
        ends = []
        for epoch in range(int(count)):
            for _ in range(loader.steps_per_epoch):
                next(loader)
            if epoch in (1, int(count) - 1):
                ends.append(sum(_memory(one)[1] for one in [psutil.Process(), *_children()]))
        print(json.dumps([ends]))


def workers() -> Iterator[tuple[float, float]]:
    """Yield what each worker has of its own, and with its share [MB]."""
    found = sorted((_memory(one) for one in _children()), reverse=True)
    yield from found[:WORKERS]  # the others start and watch them, and have less


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _memory(process: psutil.Process) -> tuple[float, float]:
    full = process.memory_full_info()
    return full.uss / 1e6, full.pss / 1e6


if __name__ == "__main__":
    measure(*sys.argv[1:])
