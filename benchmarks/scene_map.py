"""A whole scene by a model: memory, pixels a second, and the same map from one and two processes.

A scene of 3400 x 1100 pixels in 242 bands, int16, as a tiled GeoTIFF; a segmentation of size tiny.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
import yaml
from rasterio.transform import from_origin
from rasterio.windows import Window

WORK = Path("build/bench/scene_map")
ROWS, COLUMNS, BANDS = 3400, 1100, 242
MOST_BYTES = 1.5e9
SCALE = 10000
STRIP = 64


def main() -> int:
    """Measure and print."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    _train()
    _write_scene(WORK / "scene.tif")
    maps = {}
    for workers in (0, 2):
        use = {
            "checkpoint": str(WORK / "run"), "image": str(WORK / "scene.tif"), "scale": SCALE,
            "out": str(WORK / f"map{workers}"), "workers": workers, "device": "cpu",
        }  # fmt: skip
        (WORK / "map.yaml").write_text(yaml.safe_dump(use))
        began = time.perf_counter()
        found, most = _command("predict", WORK / "map.yaml")
        seconds = time.perf_counter() - began
        maps[workers] = {name: Path(path).read_bytes() for name, path in found["maps"].items()}
        print(
            f"{ROWS} x {COLUMNS} px, {BANDS} bands, {workers or 1} process(es): {seconds:.0f} s, "
            f"{ROWS * COLUMNS / seconds:.0f} px/s, largest process {most / 1e9:.2f} GB of "
            f"{MOST_BYTES / 1e9:g}"
        )
        with (
            rasterio.open(found["maps"]["class"]) as file,
            rasterio.open(WORK / "scene.tif") as scene,
        ):
            same = file.transform == scene.transform and file.crs == scene.crs
            print(f"the scene's grid: {same and file.shape == scene.shape}")
    print(f"same bytes by one and by two: {maps[0] == maps[2]}")
    return 0


def _train() -> None:
    made = {"kind": "classes", "rows": 60, "columns": 60, "bands": BANDS}
    (WORK / "classes.yaml").write_text(yaml.safe_dump(
        {"title": "classes", "task": "any", "where": "made here", "synthetic": made}
    ))  # fmt: skip
    task = {
        "run": str(WORK / "run"), "task": "segmentation", "data": str(WORK / "classes.yaml"),
        "mode": "spatial", "size": "tiny", "patch_size": 4,
        "options": {"window": 64, "overlap": 16},
        "split": {"n_per_class": 10, "block": 10, "guard": 1},
        "train": {"steps": 20, "batch_size": 4, "device": "cpu"},
    }  # fmt: skip
    (WORK / "task.yaml").write_text(yaml.safe_dump(task))
    _command("finetune", WORK / "task.yaml")


def _write_scene(path: Path) -> None:
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "count": BANDS, "height": ROWS, "width": COLUMNS, "dtype": "int16",
        "crs": "EPSG:32633", "transform": from_origin(500000, 5600000, 30, 30), "nodata": 0,
        "tiled": True, "blockxsize": 256, "blockysize": 64, "bigtiff": "yes",
        "interleave": "band",
    }  # fmt: skip
    wavelengths = np.linspace(400, 2500, BANDS)
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, ROWS, STRIP):
            count = min(STRIP, ROWS - row)
            strip = rng.integers(1000, 5000, (BANDS, count, COLUMNS), dtype=np.int16)
            file.write(strip, window=Window(0, row, COLUMNS, count))
        for band, wavelength in enumerate(wavelengths, start=1):
            file.update_tags(band, wavelength=f"{wavelength:.6f}")


def _command(name: str, config: Path) -> tuple[dict[str, dict[str, str]], int]:
    """Run a command; return what it printed, and the largest memory of its processes [B]."""
    code = (
        "import resource, subprocess, sys; "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); print(done.stdout); "
        "sys.exit(done.returncode)"
    )
    command = [sys.executable, "-m", "hypersigma", name, str(config), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True, check=True
    )
    most, _, found = done.stdout.partition("\n")
    return json.loads(found), int(most) * 1024
