"""Tasks on a cube that is a scene of our own: from pretrained encoders, to a map of the scene."""

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import Affine

import configs
from hypersigma.cubefit import fit_task
from hypersigma.mapping.scenes import MapConfig, map_scene
from hypersigma.pretrain import pretrain
from hypersigma.runfolder import TrainError
from hypersigma.tasks.task import TaskConfig

from .conftest import PLACE


@pytest.fixture
def scene(world, tmp_path):
    """The YAML file of scene h1, whose tiles of all splits are together in it."""
    path = tmp_path / "h1.yaml"
    stored = {"store": str(world.store), "scene_id": "h1", "labels": str(world.labels)}
    path.write_text(yaml.safe_dump(
        {"title": "Ours", "task": "segmentation", "where": "built here", "stored": stored}
    ))  # fmt: skip
    return path


@pytest.fixture
def task(scene, tmp_path):
    """Return a function that makes a small segmentation of it."""

    def make(**changes):
        raw = {
            "run": tmp_path / "task", "task": "segmentation", "data": str(scene), "mode": "both",
            "size": "tiny", "patch_size": 4, "cell_size": 8,
            "options": {"window": 16, "overlap": 8},
            "split": {"n_per_class": 20, "block": 16, "guard": 1},
            "train": {"steps": 20, "batch_size": 4, "device": "cpu",
                      "optim": {"blr": 0.128, "warmup_steps": 4}},
        } | changes  # fmt: skip
        return configs.check(TaskConfig, raw, where="test")

    return make


def test_the_map_of_a_scene_of_a_store_is_that_of_its_cube(world, task, tmp_path):
    assert fit_task(task())["metrics"]["oa"] > 0.9
    found = map_scene(MapConfig(
        checkpoint=tmp_path / "task", store=str(world.store), scene_id="h1", out=tmp_path / "map"
    ))  # fmt: skip
    with np.load(tmp_path / "task/maps.npz") as file:
        whole = file["probability"]
    with rasterio.open(found["maps"]["probability"]) as file:
        mapped = file.read()
        assert file.crs.to_string() == PLACE["h1"]["crs"]
        assert file.transform == Affine(*PLACE["h1"]["transform"])
        assert file.tags()["version"] == "v1"
    missing = ~np.isfinite(world.cubes["h1"]).all(0)
    assert np.isnan(mapped[:, missing]).all()
    np.testing.assert_allclose(mapped[:, ~missing], whole[:, ~missing], atol=1e-5)


def test_a_scene_of_another_sensor_is_refused(world, task, tmp_path):
    fit_task(task())
    use = {"checkpoint": tmp_path / "task", "store": str(world.store), "out": tmp_path / "map"}
    with pytest.raises(ValueError, match=r"a1: expected the 24 bands of .* got 20"):
        map_scene(MapConfig(**use, scene_id="a1"))
    with pytest.raises(ValueError, match="expected scene_id beside store"):
        map_scene(MapConfig(**use))


def test_a_task_starts_from_pretrained_encoders(pretraining, task, tmp_path):
    for kind in ("spatial", "spectral"):
        pretrain(pretraining(kind, kind=kind, train={"steps": 2}))
    pretrained = {kind: tmp_path / kind for kind in ("spatial", "spectral")}
    summary = fit_task(task(pretrained=pretrained))
    assert summary["metrics"]["oa"] > 0.9
    for kind in ("spatial", "spectral"):
        report = summary["pretrained"][kind]
        assert report["from"].startswith(str(tmp_path / kind))
        assert len(report["loaded"]) > 40
        assert report["resized"]  # kernels of patches and cells, for one
    with pytest.raises(TrainError, match=r"pretrained\.spectral is given, but mode spatial"):
        fit_task(task(run=tmp_path / "other", mode="spatial", pretrained=pretrained))
    options = {"window": 16, "overlap": 8, "components": 6}
    with pytest.raises(ValueError, match=r"expected bands for pretrained encoders \(spatial, "):
        fit_task(task(run=tmp_path / "other", options=options, pretrained=pretrained))
