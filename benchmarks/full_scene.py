"""A full-size Hyperion L1T scene, as delivered, to stored tiles.

Each way runs in a process of its own, in turn, several times; only its work is timed, not imports.

- ours: `hypersigma-data build` with recipe `reference`: read, mask, normalise, tile, store, commit.
  Also a scene twice as long, and recipe `reflectance`, which does and stores much more.
- plain: rioxarray opens each band, xarray stacks them, NumPy cuts tiles of the kept ones, one
  `savemat` a tile. And the same for who knows beforehand which bands to open.
- limit: GDAL decodes the kept bands' blocks and Blosc encodes the kept tiles' bytes on all cores,
  nothing else.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.sensors import band_list

WORK = Path("build/bench")
ROUNDS = 3
SIDE, MIN_VALID = 64, 0.9


def main() -> int:
    """Measure all ways and print seconds, peak memory and ratios."""
    scene, long_scene = synthetic(1), synthetic(2)
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for way in WAYS:
            runs.setdefault(way, []).append(measured(way, scene))
    runs["plain, kept bands"] = [measured("plain", scene, "kept") for _ in range(ROUNDS)]
    runs["ours, twice as long"] = [measured("ours", long_scene)]
    runs["ours, reflectance"] = [measured("ours", scene, "reflectance")]
    shutil.rmtree(WORK / "out", ignore_errors=True)
    tiles = {int(run["tiles"]) for way in WAYS for run in runs[way]}
    assert len(tiles) == 1, f"all ways must keep the same tiles, got {tiles}"
    seconds = {way: median(run["seconds"] for run in found) for way, found in runs.items()}
    peak = {way: max(run["peak_mb"] for run in found) for way, found in runs.items()}
    print(
        f"A full-size L1T scene (242 x 3400 x 1100) to {tiles.pop()} stored tiles, "
        f"{os.cpu_count()} cores"
    )
    for way in runs:
        all_of_it = ", ".join(f"{run['seconds']:.2f}" for run in runs[way])
        print(f"{way:20s} {seconds[way]:6.2f} s   peak {peak[way]:5.0f} MB   ({all_of_it})")
    for way in ("plain", "plain, kept bands"):
        print(f"{way} / ours {seconds[way] / seconds['ours']:.1f}x")
    print(f"limit / ours {100 * seconds['limit'] / seconds['ours']:.0f} %")
    long_peak = peak["ours, twice as long"]
    print(f"peak of a scene twice as long {100 * long_peak / peak['ours']:.0f} %")
    return 0


def synthetic(times: int) -> Path:
    """Return a synthetic L1T archive `times` as long as a full one, made if it is not there."""
    from pipeline.synth.hyperion import FULL_SIZE, write_map_product
    from pipeline.synth.plan import plan_scene
    from pipeline.synth.world import make_world

    folder = WORK / f"raw{times}"
    if found := sorted(folder.glob("*.ZIP")):
        return found[0]
    print(f"writing a synthetic scene to {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    (rows, cols), (lines, samples) = FULL_SIZE.shape, FULL_SIZE.footprint
    tilt = FULL_SIZE.tilt / times  # the same number of columns
    frame = replace(
        FULL_SIZE, shape=(rows * times, cols), footprint=(lines * times, samples), tilt=tilt
    )
    return write_map_product(folder, plan_scene(0, 0), make_world(0), frame)[0]


def measured(way: str, scene: Path, *options: str) -> dict[str, float]:
    """Run one way in a process of its own."""
    shutil.rmtree(WORK / "out", ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.full_scene", way, str(scene), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(scene: Path, recipe: str = "reference") -> Callable[[], int]:
    """The product itself."""
    import distributed  # noqa: F401  (Dask does at its first graph)

    from pipeline.build import DatasetConfig, build_dataset
    from pipeline.split import SplitConfig

    # One split for all: every tile with data is kept, as in the plain way.
    split = SplitConfig(block_km=5000, guard_m=0, fractions={"train": 1.0})
    config = DatasetConfig("bench", scene, str(WORK / "out"), recipe, split)
    return lambda: build_dataset(config).tiles


def plain(scene: Path, bands: str = "every") -> Callable[[], int]:
    """As one would write it down."""
    import rioxarray
    import xarray as xr
    from scipy.io import savemat

    def work() -> int:
        kept = list(band_list("hyperion", "hyperglobal").bands)
        names = band_names(scene) if bands == "kept" else every_band_name(scene)
        opened = [
            rioxarray.open_rasterio(f"/vsizip/{scene.resolve()}/{name}").squeeze("band", drop=True)
            for name in names
        ]
        numbers = kept if bands == "kept" else range(1, len(names) + 1)
        cube = xr.concat(opened, dim=xr.Variable("band", list(numbers)))
        image = cube.values if bands == "kept" else cube.sel(band=kept).values
        for band in opened:
            band.close()
        out = WORK / "out"
        out.mkdir(parents=True)
        corners = kept_corners(image)
        for row, col in corners:
            savemat(out / f"{row}_{col}.mat", {"img": image[:, row : row + SIDE, col : col + SIDE]})
        return len(corners)

    return work


def limit(scene: Path) -> Callable[[], int]:
    """What this machine could do at best this way."""
    import rasterio
    from numcodecs import blosc

    names = [f"/vsizip/{scene.resolve()}/{name}" for name in band_names(scene)]
    with rasterio.open(names[0]) as first:
        image = np.empty((len(names), first.height, first.width), first.dtypes[0])
    for band, name in zip(image, names, strict=True):
        with rasterio.open(name) as file:
            file.read(1, out=band)
    tiles = [
        np.ascontiguousarray(image[:, row : row + SIDE, col : col + SIDE])
        for row, col in kept_corners(image)
    ]
    shape = image.shape[1:]
    del image
    blosc.use_threads = False
    codec = blosc.Blosc("zstd", 3, blosc.BITSHUFFLE)

    def decode(name: str) -> None:
        with rasterio.open(name) as file:
            file.read(1, out=np.empty(shape, file.dtypes[0]))

    def work() -> int:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, names))
            list(pool.map(codec.encode, tiles))
        return len(tiles)

    return work


def every_band_name(scene: Path) -> list[str]:
    """Return the archive's names of all bands, in their order."""
    with zipfile.ZipFile(scene) as archive:
        return sorted(name for name in archive.namelist() if "_MTL_" not in name)


def band_names(scene: Path) -> list[str]:
    """Return the archive's names of the bands that recipe `reference` keeps, in their order."""
    names = every_band_name(scene)
    return [names[band - 1] for band in band_list("hyperion", "hyperglobal").bands]


def kept_corners(image: np.ndarray) -> list[tuple[int, int]]:
    """Return the corners of the tiles with enough data."""
    valid = (image != 0).any(axis=0)
    return [
        (row, col)
        for row in range(0, valid.shape[0] - SIDE + 1, SIDE)
        for col in range(0, valid.shape[1] - SIDE + 1, SIDE)
        if valid[row : row + SIDE, col : col + SIDE].mean() >= MIN_VALID
    ]


WAYS: dict[str, Callable[..., Callable[[], int]]] = {
    "ours": ours,
    "plain": plain,
    "limit": limit,
}


def run_one(way: str, scene: Path, *options: str) -> None:
    """Time one way in this process and print what was found as JSON."""
    work = WAYS[way](scene, *options)
    started = time.perf_counter()
    tiles = work()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "tiles": tiles}))


def peak_mb() -> float:
    """Return this process's largest resident memory [MB]; ru_maxrss has the parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


if __name__ == "__main__":
    run_one(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
