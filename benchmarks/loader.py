"""Tiles to float32 batches of 100-band windows, on one core, beside other loaders and the limit.

The same tiles in each one's own format, the same batches, shuffled; every way has a process that
is checked first and then takes turns with the others. All files are in the page cache.

- ours: `storage.stream`, checksums compared; ahead: `TileLoader` over it, its thread on that core.
- reference: one .mat file a tile, as published; webdataset: our tars, stock.
- litdata, mosaic: their own formats, from an environment of their own; left out if that fails.
- limit: windows of one memory-mapped array. All but the reference cast in one step.
"""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.turns import BANDS, TILES, WORK, Child

ROUNDS = 7
SCENES = 8
PEERS = Path("build/bench/peers")
PINS = ["litdata==0.2.76", "mosaicml-streaming==0.13.0", "torch==2.14.1", "torchvision==0.29.1"]
WAYS = ("limit", "ours", "ahead", "webdataset", "reference")
BARS = {"reference": 5.0, "webdataset": 4.0, "litdata": 1.3, "mosaic": 1.3, "limit": 0.6}


def main() -> int:
    """Measure all ways in turn and print tiles a second and ratios."""
    make_tiles()
    rates: dict[str, list[list[float]]] = {}
    with ExitStack() as stack:
        ways = {}
        for name, command in commands().items():
            ways[name] = Child(command)
            stack.callback(ways[name].close)
            numbers = ways[name].ask("check")
            assert sorted(numbers) == list(range(TILES)), f"{name} must give each tile once"
            assert numbers != sorted(numbers), f"{name} must be shuffled"
        for _ in range(ROUNDS):
            for name, way in ways.items():
                rates.setdefault(name, []).append(way.ask("go"))
    print("One core, batches of 32 windows of 100 bands, float32: tiles a second, and a CPU second")
    for name, found in rates.items():
        wall, cpu = np.median(found, axis=0)
        slow, fast = np.min(found, axis=0)[0], np.max(found, axis=0)[0]
        print(f"{name:12s} {wall:6.0f} ({slow:.0f} to {fast:.0f})   {cpu:6.0f}")
    for name in [name for name in BARS if name in rates]:
        wall, cpu = np.median(np.divide(rates["ours"], rates[name]), axis=0)
        print(f"ours / {name:11s} {wall:5.2f}x, by CPU time {cpu:5.2f}x, wanted {BARS[name]}x")
    return 0


def commands() -> dict[str, list[str]]:
    """Return what runs each way; a peer that cannot be installed is left out, with words."""
    found = {name: [sys.executable, "-m", "benchmarks.loaders", name] for name in WAYS}
    python = PEERS / "bin/python"
    if not (PEERS / "ready").exists():
        uv = Path(".tools/bin/uv")
        for arguments in (
            ["venv", "--quiet", "--clear", "--python", sys.executable, str(PEERS)],
            ["pip", "install", "--quiet", "--python", str(python), *PINS],
        ):
            done = subprocess.run([uv, *arguments], capture_output=True, text=True)
            if done.returncode:
                print(f"litdata and mosaicml-streaming are left out: {done.stderr.strip()[-500:]}")
                return found
        (PEERS / "ready").touch()
    peers = {name: [str(python), "-m", "benchmarks.peers", name] for name in ("litdata", "mosaic")}
    return {**found, **peers}


def make_tiles() -> None:
    """Write the tiles as shards, as one array and as .mat files, if they are not there."""
    import scipy.io

    from storage.shards import ShardOptions, write_shards
    from storage.stream import open_shards, read_tile
    from tests.storage import tiles as synthetic

    if (WORK / "mat/done").exists():
        return
    (WORK / "mat").mkdir(parents=True, exist_ok=True)
    scenes = []
    for scene in range(SCENES):
        one = synthetic.make_tiles(f"s{scene}", TILES // SCENES, BANDS, seed=scene)
        number = scene * len(one.tile) + np.arange(len(one.tile))
        one["split"][:] = "train"
        one["tiles"] = one.tiles.clip(1)  # without fills
        one.tiles[:, :, 0, 0] = 1 + number[:, None]
        one.tiles[:, :, 0, 1] = 1 + np.arange(BANDS)
        scenes.append(one)
    synthetic.build(synthetic.make_store(WORK / "store"), *scenes)
    write_shards(WORK / "store", WORK / "shards", options=ShardOptions(tiles_per_shard=64))
    shards = open_shards(WORK / "shards")
    truth = np.lib.format.open_memmap(WORK / "truth.npy", "w+", np.int16, (TILES, BANDS, 64, 64))
    for row in range(TILES):
        tile = read_tile(shards, row)
        number = int(tile[0, 0, 0]) - 1
        truth[number] = tile
        scipy.io.savemat(WORK / f"mat/{number:04d}.mat", {"img": tile})
    truth.flush()
    (WORK / "mat/done").touch()


if __name__ == "__main__":
    sys.exit(main())
