"""How a build grows: the coordinator's memory, the commit's time, and two workers beside one.

- growth: a store of 10 scenes and one of 500, each made by a coordinator of its own, while
  processes of a pool make the tiles: few a scene, with all the bands and columns of real ones, for
  what grows is the number of scenes.
  Then, in turn, one more scene for each: the commit is all from its end to the published version.
- workers: synthetic products by one Dask worker on one core, and by two on two.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import xarray as xr

from storage import store
from storage.index import source_digest

WORK = Path("build/bench/builds")
SIZES = (10, 500)
MORE = 7
TILES, BANDS = 8, 175
PRODUCTS = 12
ROUNDS = 2


def main() -> int:
    """Measure both and print them."""
    shutil.rmtree(WORK, ignore_errors=True)
    growth()
    workers()
    shutil.rmtree(WORK)
    return 0


def growth() -> None:
    """Print memory and commit times at 10 and at 500 scenes."""
    peaks = {size: _child("grow", str(size))["peak_mb"] for size in SIZES}
    times: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    for number in range(MORE):
        for size in SIZES:
            times[size].append(_child("grow", str(size), str(size + number + 1)))
    for size in SIZES:
        commits = [run["commit_s"] for run in times[size]]
        print(
            f"{size:4d} scenes: coordinator {peaks[size]:.0f} MB; one more scene: commit "
            f"{median(commits) * 1000:.0f} ms ({', '.join(f'{1000 * c:.0f}' for c in commits)}), "
            f"whole build {median(run['build_s'] for run in times[size]):.2f} s"
        )
    few, many = (median(run["commit_s"] for run in times[size]) for size in SIZES)
    print(f"commit at {SIZES[1]} / at {SIZES[0]} scenes {many / few:.2f}x")
    print(f"memory at {SIZES[1]} / at {SIZES[0]} scenes {peaks[SIZES[1]] / peaks[SIZES[0]]:.2f}x")


def grow(size: str, total: str = "") -> None:
    """Bring the store of a size to so many scenes, or to `total`; print what that took as JSON."""
    from pipeline.build import DatasetConfig, build_dataset

    count, folder = int(total or size), WORK / size
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        day = f"{2001 + number // 360}{1 + number % 360:03d}"
        product = folder / "raw" / f"EO1H193024{day}110KF_1T.ZIP"
        if not product.exists():
            product.touch()
    config = DatasetConfig("grown", folder / "raw", str(folder / "store"), "reference")
    ended: list[float] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        pool.submit(os.getpid).result()
        began = time.perf_counter()
        report = build_dataset(config, _on(pool, ended))
        now = time.perf_counter()
    assert report.version, report
    with store.commit_lock(config.store):
        assert len(store.scenes(store.open_repository(config.store))) == count
    figures = {"peak_mb": _peak(), "build_s": now - began, "commit_s": now - ended[-1]}
    print(json.dumps(figures))


def _on(pool: ProcessPoolExecutor, ended: list[float]) -> Callable[..., Iterator[Any]]:
    """Return a runner that makes tiles in a pool's processes, and notes when each scene ended."""

    def run(tasks: Sequence[Any], start: Callable[[Any], Any]) -> Iterator[Any]:
        for first in range(0, len(tasks), 4):
            some = tasks[first : first + 4]
            forks = [start(task).keywords["fork"] for task in some]
            names = [task.path.name.removesuffix(".ZIP") for task in some]
            for task, done in zip(some, pool.map(_made, forks, names), strict=True):
                ended.append(time.perf_counter())
                yield task, done

    return run


def _made(fork: Any, scene_id: str) -> Any:
    from pipeline.coordinator import Ingested

    tiles = _tiles(scene_id)
    counts = store.write_scene(fork, tiles)
    return Ingested(scene_id, counts, fork, source_digest(tiles.attrs["sources"]))


def _tiles(scene_id: str) -> xr.Dataset:
    """Return small random tiles with as many columns as a scene of the recipe has."""
    from pipeline.recipe import load_recipe, scene_recipe_hash
    from pipeline.split import SplitConfig

    rng = np.random.default_rng(list(scene_id.encode()))
    place = np.arange(TILES)
    spectrum = rng.integers(100, 4000, (TILES, BANDS, 1, 1))
    bands = np.arange(8, 8 + BANDS)
    # As in the scenes of the tests: cirrus, snow, dead and saturated pixels are rare.
    columns = {f"{name}_fraction": ("tile", rng.random(TILES, "f4"))
               for name in ("valid", "cloud", "water", "shadow")}  # fmt: skip
    columns |= {f"{name}_fraction": ("tile", np.zeros(TILES, "f4"))
                for name in ("dead", "cirrus", "snow", "saturated")}  # fmt: skip
    columns["snr"] = ("tile", rng.random(TILES, "f4"))
    metres = ("right_east", "right_north", "down_east", "down_north")
    attrs = dict.fromkeys(("platform", "level", "acquired"), "x") | {
        "scene_id": scene_id, "sensor": "hyperion", "sun_elevation": 50.0, "sun_azimuth": 120.0,
        "view_zenith": 0.0, "nodata": 0, "scale": 4000.0, "units": "1",
        "product": f"{scene_id}.ZIP",
        "recipe_hash": scene_recipe_hash(load_recipe("reference"), SplitConfig(), "hyperion"),
        "sources": [{"name": f"{scene_id}.ZIP", "bytes": 1, "sha256": scene_id}],
        "steps": [{"step": "mask", "effect": rng.random(100).tolist()}],
        "counts": {"in": TILES, "kept": TILES, "rejected": {}},
    }  # fmt: skip
    return xr.Dataset(
        {
            "tiles": (("tile", "band", "y", "x"),
                      (spectrum + rng.integers(0, 4, (TILES, BANDS, 64, 64))).astype("int16")),
            "valid": (("tile", "y", "x"), np.ones((TILES, 64, 64), bool)),
        },
        {
            "band": bands, "wavelength": ("band", 10.0 * bands), "fwhm": ("band", bands * 0 + 10.0),
            "detector": ("band", np.full(BANDS, "VNIR")), "gain": ("band", bands * 0 + 1.0),
            "offset": ("band", bands * 0.0),
            "row": ("tile", 64 * place), "col": ("tile", 64 * place),
            "lon": ("tile", 10 + 0.1 * place), "lat": ("tile", 50 + 0.1 * place),
            "split": ("tile", np.full(TILES, "train")), **columns,
            **{name: ("tile", rng.normal(960, 1, TILES).astype("f4")) for name in metres},
        },
        attrs,
    )  # fmt: skip


def workers() -> None:
    """Print how much faster two Dask workers are than one."""
    from pipeline.synth import write_products

    raw = WORK / "raw"
    write_products(raw, scenes=PRODUCTS, seed=0)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for count in seconds:
            with _cluster(count) as address:
                _child("build", address)  # workers import, disks are warm
                seconds[count].append(_child("build", address)["build_s"])
    one, two = (min(seconds[count]) for count in seconds)
    for count, found in seconds.items():
        print(f"{count} workers: {', '.join(f'{s:.1f}' for s in found)} s for {PRODUCTS} products")
    print(f"one worker / two workers {one / two:.2f}x")


def build(address: str) -> None:
    """Build the synthetic products on a cluster; print the seconds as JSON."""
    from pipeline.build import DatasetConfig, build_dataset

    shutil.rmtree(WORK / "store", ignore_errors=True)
    shutil.rmtree(WORK / "store.scenes", ignore_errors=True)
    config = DatasetConfig("b", WORK / "raw", str(WORK / "store"), "reflectance", dask=address)
    began = time.perf_counter()
    report = build_dataset(config)
    assert len(report.added) == PRODUCTS, report
    print(json.dumps({"build_s": time.perf_counter() - began}))


@contextmanager
def _cluster(count: int) -> Iterator[str]:
    """Run a scheduler and workers of one thread, each on a core of its own."""
    with ExitStack() as stack:
        port = 8791
        address = f"tcp://127.0.0.1:{port}"
        commands = [["scheduler", "--port", str(port), "--no-dashboard", "--host", "127.0.0.1"]]
        commands += [["worker", address, "--nthreads", "1", "--no-dashboard"]] * count
        for core, command in enumerate(commands, -1):
            pinned = ["taskset", "-c", str(core)] if core >= 0 else []
            process = subprocess.Popen([*pinned, sys.executable, "-m", "dask", *command],
                                       stderr=subprocess.DEVNULL)  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
        time.sleep(8)
        yield address


def _child(*arguments: str) -> dict[str, float]:
    """Return what one function prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.builds", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ})
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak() -> float:
    """Return this process's largest resident memory [MB]; ru_maxrss has the parent's, too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    {"grow": grow, "build": build}[sys.argv[1]](*sys.argv[2:])
