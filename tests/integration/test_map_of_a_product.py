"""From a raw product straight to a map: the same as through a store, and nothing left beside it."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import rasterio
import yaml

from hypersigma.cubefit import fit_task
from hypersigma.mapping.scenes import ONE_SPLIT, MapConfig, map_scene
from hypersigma.tasks.task import TaskConfig
from pipeline.synth.products import write_products

TASK = {
    "task": "unmixing", "mode": "spatial", "size": "tiny", "patch_size": 8,
    "options": {"endmembers": 3, "window": 32, "overlap": 8},
    "train": {"steps": 2, "batch_size": 2, "device": "cpu"},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A raw product, a store of it, and a task that was trained on its scene."""
    folder = tmp_path_factory.mktemp("product")
    (scene,) = write_products(folder / "raw", scenes=1)
    product = folder / "raw" / scene["path"]
    dataset = {"name": "map", "source": str(product), "store": str(folder / "store"),
               "recipe": "reflectance_map", "split": ONE_SPLIT}  # fmt: skip
    (folder / "dataset.yaml").write_text(yaml.safe_dump(dataset))
    build = [sys.executable, "-m", "pipeline", "build", str(folder / "dataset.yaml")]
    subprocess.run(build, check=True)
    stored = {"store": str(folder / "store"), "scene_id": scene["scene_id"]}
    (folder / "scene.yaml").write_text(yaml.safe_dump(
        {"title": "Made", "task": "unmixing", "where": "built here", "stored": stored}
    ))  # fmt: skip
    raw = TASK | {"run": folder / "run", "data": str(folder / "scene.yaml")}
    fit_task(TaskConfig(**raw))
    return folder, product, scene


def test_a_product_has_the_map_of_its_store(made, tmp_path):
    folder, product, scene = made
    use = {"checkpoint": folder / "run", "device": "cpu"}
    of_store = map_scene(MapConfig(
        **use, store=str(folder / "store"), scene_id=scene["scene_id"], out=tmp_path / "store"
    ))  # fmt: skip
    of_product = map_scene(MapConfig(**use, product=product, out=tmp_path / "product"))
    maps = []
    for found in (of_store, of_product):
        with rasterio.open(found["maps"]["abundance"]) as file:
            maps.append(file.read())
            assert file.crs.is_projected
    np.testing.assert_array_equal(*maps)
    # Every measured pixel: no tile is left out between two splits.
    assert np.isfinite(maps[0][0]).mean() > 0.7
    assert not list((tmp_path / "product").glob(".*"))


def test_what_is_no_product_is_refused(made, tmp_path):
    folder, _, _ = made
    use = {"checkpoint": folder / "run", "out": tmp_path / "map"}
    with pytest.raises(FileNotFoundError, match=r"none\.ZIP: expected a raw product"):
        map_scene(MapConfig(**use, product=tmp_path / "none.ZIP"))
    (tmp_path / "broken.ZIP").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"broken\.ZIP: `hypersigma-data build` failed"):
        map_scene(MapConfig(**use, product=tmp_path / "broken.ZIP"))


def test_a_build_ends_with_who_waits_for_it(made, tmp_path):
    folder, product, _ = made
    use = {"checkpoint": str(folder / "run"), "product": str(product), "out": str(tmp_path / "map")}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(use))
    command = [sys.executable, "-m", "hypersigma", "predict", str(tmp_path / "map.yaml")]
    with subprocess.Popen(command, start_new_session=True) as process:
        children: list[psutil.Process] = []
        deadline = time.monotonic() + 120
        while not children and process.poll() is None and time.monotonic() < deadline:
            children = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.05)
        assert children
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
    _, alive = psutil.wait_procs(children, 30)
    assert not alive
