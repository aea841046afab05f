"""The index of a million tiles of 2,000 scenes: opened and audited, each in a fresh process.

Its scenes lie ten on one another, as the dates of one place do, and are split by the default
configuration; each has its counts, and no pixels.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import zarr

from pipeline.split import SplitConfig, assign
from storage import store
from storage.index import empty_index, save_index, with_scenes
from storage.nodes import subgroup
from storage.schema import FOOTPRINT_COORDS

STORE = Path("build/bench/index")
SCENES, DATES, TILES = 2000, 10, 1_000_000
QUALITY = ("valid_fraction", "dead_fraction", "cloud_fraction", "water_fraction", "snr")
_ROWS, _COLS, _SIDE_M = 60, 14, 1920.0
_PEAK = """
import re, sys, time
started = time.perf_counter()
{work}
seconds = time.perf_counter() - started
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(seconds, int(peak) / 1024, result)
"""
_OPEN = """
from storage.index import read_index
from storage.store import open_version
started = time.perf_counter()
result = len(read_index(open_version({store!r})))
"""
_AUDIT = """
from pipeline.audit.proof import audit
started = time.perf_counter()
found = audit({store!r})
assert found.passed, found.breaches
result = found.tiles
"""


def main() -> int:
    """Make the store if it is not there, measure, and print seconds and peak memory."""
    if not STORE.exists():
        started = time.perf_counter()
        make_store(STORE)
        print(f"a store of {TILES:,} tiles of {SCENES:,} scenes made in "
              f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    for name, work, limit_s, limit_mb in (
        ("read_index", _OPEN, 2, 300),
        ("audit", _AUDIT, 60, 1500),
    ):
        code = _PEAK.format(work=work.format(store=str(STORE)))
        runs = [
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            for _ in range(3)
        ]
        seconds, peak, tiles = min(tuple(map(float, run.stdout.split())) for run in runs)
        assert tiles == TILES, f"expected {TILES} tiles, got {tiles}"
        print(f"{name:12s} {seconds:6.2f} s of {limit_s}   peak {peak:5.0f} MB of {limit_mb}")
    return 0


def make_store(place: Path) -> None:
    """Write an index of synthetic tiles, and their scenes' counts, as one version."""
    config = SplitConfig()
    recipe = {
        "steps": [],
        "split": {"guard_m": config.guard_m, "fractions": dict(config.fractions)},
    }
    repo = store.create(place, dataset="index", recipe=json.dumps(recipe), recipe_hash="synthetic")
    rng = np.random.default_rng(0)
    scenes = {}
    left = TILES
    for number in range(SCENES):
        if number % DATES == 0:
            centre = rng.uniform(-180, 180), np.degrees(np.arcsin(rng.uniform(-0.85, 0.85)))
        most = -(-left // (SCENES - number))
        columns = _columns(config, centre, rng, most)
        count = len(columns["row"])
        counts = {"in": _ROWS * _COLS, "kept": count, "rejected": {"other": _ROWS * _COLS - count}}
        attrs = {"sensor": "hyperion", "content": f"{number:064x}", "counts": counts,
                 "sources": []}  # fmt: skip
        scenes[f"EO1H{number:018d}"] = columns, attrs
        left -= count
    assert left == 0, f"expected {TILES} tiles, {left} are missing"
    session = repo.writable_session("main")
    root = zarr.open_group(session.store, mode="r+")
    save_index(root, with_scenes(empty_index(), scenes))
    for name, (_, attrs) in scenes.items():
        subgroup(root, "scenes").create_group(name, attributes=attrs)
    metadata = {"version": "v1", "scenes": SCENES, "tiles": TILES, "recipe_hash": "synthetic",
                "code_version": "0"}  # fmt: skip
    session.commit("v1", metadata)
    repo.create_tag("v1", repo.lookup_branch("main"))


def _columns(
    config: SplitConfig, centre: tuple[float, float], rng: np.random.Generator, most: int
) -> dict[str, np.ndarray]:
    """Return the first `most` tiles in one split of a scene turned by 12 deg, near `centre`."""
    turn, km = np.radians(12.0), 111.195
    right = _SIDE_M / 2 * np.array([np.cos(turn), -np.sin(turn)])
    down = _SIDE_M / 2 * np.array([-np.sin(turn), -np.cos(turn)])
    row, col = (a.ravel() for a in np.meshgrid(np.arange(_ROWS), np.arange(_COLS), indexing="ij"))
    shift = rng.normal(0, 2000, 2)
    middle = 2 * (col[:, None] * right + row[:, None] * down) + shift
    east, north = middle.T / 1000
    corners = [middle + a * right + b * down for b in (-1, 1) for a in (-1, 1)]
    lat = centre[1] + north / km
    lon = centre[0] + east / km / np.cos(np.radians(lat))
    lats = centre[1] + np.stack([c[:, 1] for c in corners], 1) / 1000 / km
    lons = centre[0] + np.stack([c[:, 0] for c in corners], 1) / 1000 / km / np.cos(
        np.radians(lats)
    )
    split = assign(config, (lons + 180) % 360 - 180, lats)
    keep = np.flatnonzero(split != "")[:most]
    sides = dict(zip(FOOTPRINT_COORDS, np.float32([*right, *down]), strict=True))
    return {
        "row": (row[keep] * 64).astype("i4"), "col": (col[keep] * 64).astype("i4"),
        "lon": (lon[keep] + 180) % 360 - 180, "lat": lat[keep], "split": split[keep],
        **{name: np.full(keep.size, metres) for name, metres in sides.items()},
        "pattern": rng.integers(1, 2**64, keep.size, dtype=np.uint64),
        **{name: rng.random(keep.size, dtype=np.float32) for name in QUALITY},
    }  # fmt: skip
