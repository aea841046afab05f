"""Builds that are killed, over and over, beside the same builds undisturbed."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from storage import store
from storage.index import read_index
from storage.records import Records
from tests.pipeline.fake_products import POINTS, write_config, write_product

ROOT = Path(__file__).parents[2]
STAGES = (
    {"write": {"a": 1, "b": 2, "c": 3}},
    {"write": {"d": 4, "a": 5}, "remove": ["b"]},
    {"write": {"b": 2, "e": 6, "f": 7}},
)
"""Products that come, change and go before the first, second and third version."""
SECONDS = 0.05
"""That reading a product takes."""


def change(folder: Path, stage: int) -> None:
    """Make the products what they are at a stage."""
    for name, seed in STAGES[stage].get("write", {}).items():
        write_product(folder / "raw", name, seed=seed, seconds=SECONDS)
    for name in STAGES[stage].get("remove", []):
        (folder / "raw" / name).unlink()


def run(config: Path, point: str = "", *, after: float = 0, env: dict | None = None) -> int:
    """Build in a process of its own; it dies at `point`, or `after` seconds; return its code."""
    wanted = [*command(config), point] if point else command(config)
    process = subprocess.Popen(wanted, cwd=ROOT, env={**os.environ, **(env or {})},
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    if after:
        time.sleep(after)
        process.kill()
    _, said = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL), said.decode()
    return process.returncode


def build(config: Path) -> tuple[int, dict]:
    """Build in a process of its own; return its code and, unless it was killed, its report."""
    done = subprocess.run(command(config), cwd=ROOT, capture_output=True, timeout=300, check=False)
    assert done.returncode in (0, 1, -signal.SIGKILL), done.stderr.decode()
    return done.returncode, json.loads(done.stdout or "{}")


def start(config: Path) -> subprocess.Popen:
    """Start a build in a process of its own."""
    return subprocess.Popen(command(config), cwd=ROOT, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)  # fmt: skip


def command(config: Path) -> list[str]:
    """Return what builds."""
    return [sys.executable, "-m", "tests.pipeline.fake_products", str(config)]


def working(location: Path) -> list[str]:
    """Return the products that a build says it is working on."""
    found = Records(location, "scenes").load()
    return [name for name, record in found.items() if record["state"] == "running"]


def run_together(config: Path, count: int, env: dict | None = None) -> list[dict]:
    """Start builds of one dataset at the same time; return their reports."""
    processes = [subprocess.Popen(command(config), cwd=ROOT, env={**os.environ, **(env or {})},
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                 for _ in range(count)]  # fmt: skip
    reports = []
    for process in processes:
        out, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()
        reports.append(json.loads(out))
    return reports


def contents(location, *, pixels=True):
    """Return all that every version says, but for times and names of snapshots."""
    found = {}
    if not store.exists(location):
        return found
    repo = store.open_repository(location)
    for version in store.versions(repo):
        group = store.open_version(location, version.tag)
        table = read_index(group)
        scenes = {}
        for name in sorted(group["scenes"].group_keys()):
            scene = store.scene_dataset(group, name)
            digest = hashlib.sha256()
            for column in (*sorted(scene.coords), *(("tiles", "valid") if pixels else ())):
                values = np.ascontiguousarray(scene[column].values)
                digest.update(repr(values.tolist()).encode() if values.dtype.kind in "UTO"
                              else values.tobytes())  # fmt: skip
            scenes[name] = (digest.hexdigest(), repr(sorted(scene.attrs.items())))
        ids = table["tile_id"].to_pylist()
        assert len(ids) == len(set(ids)), "a tile is there twice"
        assert set(table["scene_id"].to_pylist()) == set(scenes), "half a scene is visible"
        sums = {n: [a[...].tolist() for _, a in sorted(g.arrays())]
                for n, g in sorted(group["statistics"].groups())}  # fmt: skip
        found[version.tag] = (version.message, version.scenes, version.tiles, version.recipe_hash,
                              scenes, repr(table.to_pydict()), repr(sums))  # fmt: skip
    return found


def undisturbed(folder: Path) -> dict:
    """Return the versions of builds that nobody disturbs."""
    folder.mkdir()
    config = write_config(folder, folder / "store")
    for stage in range(len(STAGES)):
        change(folder, stage)
        assert run(config) == 0
    return contents(folder / "store")


def disturbed(folder: Path, location, expected: dict, kills: int, seed: int, env=None) -> dict:
    """Kill up to `kills` builds before each version of the same history; return what died where.

    After each, every version is what it is without kills; at the end, all of them are there.
    """
    folder.mkdir()
    config, draw, died = write_config(folder, location), random.Random(seed), {}
    for stage in range(len(STAGES)):
        change(folder, stage)
        for _ in range(kills):
            point, after = _draw(draw)
            code = run(config, point, after=after, env=env)
            seen = contents(location)
            assert seen == dict(list(expected.items())[: len(seen)]), (point, after)
            assert len(seen) in (stage, stage + 1), (point, after)
            if not code:
                break
            name = point.partition(":")[0] or "any time"
            died[name] = died.get(name, 0) + 1
        assert run(config, env=env) == 0
    assert contents(location) == expected
    return died


def _draw(draw: random.Random) -> tuple[str, float]:
    """Return a point at which a build dies, or after how many seconds."""
    if draw.random() < 0.25:
        return "", draw.uniform(1.0, 4.5)
    point = draw.choice([*POINTS, *(f"{name}+" for name in POINTS)])
    return f"{point}:{draw.choice((1, 1, 2, 3))}", 0.0
