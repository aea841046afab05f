"""Evaluation and maps of one fine-tuned classifier."""

import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

import configs
from hypersigma import maps
from hypersigma.checkpoint import CheckpointError
from hypersigma.controls import logistic_regression, nearest_mean
from hypersigma.evaluate import EvaluateConfig, evaluate
from hypersigma.finetune import FinetuneConfig, finetune
from hypersigma.mapping import colours
from hypersigma.maps import PredictConfig, predict
from hypersigma.pretrain import pretrain
from storage.schema import SchemaError

CLASSES = ["water", "grass", "soil"]


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A classifier that has learnt the landscape."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    raw = {
        "run": folder, "shards": world.shards, "labels": world.labels, "sensor": "hyperion",
        "mode": "spatial", "size": "tiny", "n_per_class": 60, "window": 3, "patch_size": 3,
        "train": {
            "steps": 40, "batch_size": 32, "eval_every": 40, "device": "cpu",
            "optim": {"blr": 0.03, "warmup_steps": 5, "betas": [0.9, 0.99]},
        },
    }  # fmt: skip
    finetune(configs.check(FinetuneConfig, raw, where="test"))
    return folder


@pytest.fixture
def evaluation(run, world, tmp_path):
    def make(**changes):
        raw = {
            "checkpoint": run, "shards": world.shards, "labels": world.labels,
            "out": tmp_path / "out" / "metrics.json", "device": "cpu", **changes,
        }  # fmt: skip
        return configs.check(EvaluateConfig, raw, where="test")

    return make


@pytest.fixture
def mapping(run, world, tmp_path):
    def make(scene_id, **changes):
        raw = {
            "checkpoint": run, "store": str(world.store), "scene_id": scene_id,
            "out": tmp_path / "maps", "device": "cpu", **changes,
        }  # fmt: skip
        return configs.check(PredictConfig, raw, where="test")

    return make


@pytest.fixture(scope="module")
def mapped(run, world, tmp_path_factory):
    """What `predict` says of the two scenes of the sensor."""
    out = tmp_path_factory.mktemp("maps")
    raw = {"checkpoint": run, "store": str(world.store), "out": out, "device": "cpu"}
    return {
        scene: predict(configs.check(PredictConfig, raw | {"scene_id": scene}, where="test"))
        for scene in ("h1", "h2")
    }


def test_counts_what_is_right_on_the_test_split(evaluation, world):
    config = evaluation(max_pixels=500)
    result = evaluate(config)
    assert json.loads(config.out.read_text()) == result
    confusion = np.array(result["confusion"])
    assert confusion.sum() == result["pixels"] == 500
    assert result["oa"] == pytest.approx(np.trace(confusion) / 500)
    assert result["oa"] > 0.9  # spectra are far apart, only mixed windows are hard
    assert [entry["name"] for entry in result["per_class"]] == CLASSES
    assert set(result["controls"]) == {"nearest_mean", "logistic_regression"}
    assert result["controls"]["logistic_regression"]["oa"] > 0.9
    labels = [np.load(world.labels / f"{scene}.npy")[:, 192:] for scene in ("h1", "h2")]
    assert result["labelled_pixels"] == sum(np.count_nonzero(label) for label in labels)
    assert evaluate(config) == result


def test_val_and_test_are_different_pixels(evaluation):
    result = evaluate(evaluation(max_pixels=20, split="val"))
    assert result["split"] == "val"
    assert result["confusion"] != evaluate(evaluation(max_pixels=20))["confusion"]


def test_controls_are_left_out_without_the_training_pixels(evaluation, run, tmp_path, caplog):
    shutil.copytree(next((run / "checkpoints").iterdir()), tmp_path / "alone")
    result = evaluate(evaluation(checkpoint=tmp_path / "alone", max_pixels=20))
    assert result["controls"] is None
    assert "the classical controls are left out" in caplog.text


def test_controls_match_a_plain_computation():
    rng = np.random.default_rng(0)
    train = torch.tensor(rng.normal(size=(60, 4)), dtype=torch.float32)
    label = torch.tensor(rng.integers(0, 3, 60))
    other = torch.tensor(rng.normal(size=(40, 4)), dtype=torch.float32)
    means = np.stack([train[label == k].numpy().mean(0) for k in range(3)])
    expected = ((other.numpy()[:, None] - means) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(nearest_mean(train, label, other), expected)
    separable = train + 100 * torch.eye(3, 4)[label]
    np.testing.assert_array_equal(logistic_regression(separable, label, separable, 3), label)


@pytest.mark.parametrize("changed", ["wavelength", "count", "units"])
def test_refuses_shards_of_other_bands_or_units(evaluation, world, tmp_path, changed):
    shutil.copytree(world.shards, tmp_path / "other")
    path = tmp_path / "other" / "manifest.json"
    manifest = json.loads(path.read_text())
    if changed == "units":
        manifest["sensors"]["hyperion"]["units"] = "DN"
        message = "expected values in '1' .* got 'DN'"
    for entry in manifest["spectral"]:
        if changed == "wavelength" and entry["sensor"] == "hyperion":
            entry["wavelength"][3] += 1.2
            message = r"hyperion band 4 is at 516\.42 nm, 1\.20 nm from the checkpoint's"
        if changed == "count" and entry["sensor"] == "hyperion":
            entry["wavelength"] = entry["wavelength"][:-1]
            message = "expected the 24 hyperion bands of the checkpoint, got 23"
    path.write_text(json.dumps(manifest))
    with pytest.raises(SchemaError, match=message):
        evaluate(evaluation(shards=tmp_path / "other"))


def test_refuses_other_classes(evaluation, world, tmp_path):
    shutil.copytree(world.labels, tmp_path / "labels")
    (tmp_path / "labels" / "classes.json").write_text(json.dumps(["x", "y", "z"]))
    with pytest.raises(SchemaError, match="expected the checkpoint's classes"):
        evaluate(evaluation(labels=tmp_path / "labels"))


def test_refuses_a_pretraining_checkpoint(evaluation, pretraining):
    config = pretraining()
    pretrain(config)
    with pytest.raises(CheckpointError, match="a checkpoint of `finetune`, got one of 'pretrain'"):
        evaluate(evaluation(checkpoint=config.run))
    with pytest.raises(CheckpointError, match="expected a run folder with checkpoints"):
        evaluate(evaluation(checkpoint=config.run / "none"))


def test_map_covers_every_measured_pixel_on_the_grid_of_the_scene(mapped, world):
    result = mapped["h1"]
    with rasterio.open(result["map"]) as source:
        labels = source.read(1)
        assert (source.dtypes, source.nodata) == (("uint8",), 0)
        assert source.crs.to_epsg() == 32633
        assert source.transform[:6] == (30.0, 0.0, 500000.0, 0.0, -30.0, 5600000.0)
        assert source.colormap(1)[1] == (*colours.COLOURS[0], 255)
        assert source.colormap(1)[0][3] == 0
        assert {source.tags(1)[f"class_{k}"] for k in (1, 2, 3)} == set(CLASSES)
        assert source.tags()["scene_id"] == "h1"
        assert source.tags()["version"] == "v1"
    valid = np.isfinite(world.cubes["h1"][0])
    np.testing.assert_array_equal(labels > 0, valid)
    assert (labels == world.truth["h1"])[valid].mean() > 0.9
    assert result["georeference"] == "crs"
    assert result["pixels"] == valid.sum() == sum(result["per_class"].values())
    assert plt.imread(result["preview"]).shape[2] == 4
    assert json.loads(Path(result["map"]).with_suffix(".json").read_text()) == result


def test_map_and_evaluation_agree(mapped, evaluation, world):
    """The same pixels get the same classes from the store and from the shards."""
    confusion = np.zeros((3, 3), int)
    for scene in ("h1", "h2"):
        with rasterio.open(mapped[scene]["map"]) as source:
            found = source.read(1)[:, 192:]
        label = np.load(world.labels / f"{scene}.npy")[:, 192:]
        np.add.at(confusion, (label[label > 0] - 1, found[label > 0] - 1), 1)
    assert evaluate(evaluation())["confusion"] == confusion.tolist()


def test_scene_in_sensor_geometry_gets_ground_points(mapped):
    result = mapped["h2"]
    assert result["georeference"] == "gcp"
    with rasterio.open(result["map"]) as source:
        points, crs = source.gcps
    assert crs.to_epsg() == 4326
    assert len(points) == 4
    assert (points[1].row, points[1].col) == (32, 96)
    assert (points[1].x, points[1].y) == pytest.approx((15 + 64e-4, 50))


def test_georeference_by_rational_polynomials(world, tmp_path):
    from storage.store import open_version, scene_dataset

    scene = scene_dataset(open_version(world.store), "a1")
    labels = np.ones((64, 256), np.uint8)
    assert maps.write_geotiff(tmp_path / "a.tif", labels, scene, CLASSES, {}) == "rpc"
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.rpcs.lat_off == 30.0
        assert source.rpcs.samp_num_coeff[1] == 1.0


def test_map_without_any_georeference_is_in_pixels(world, tmp_path, caplog):
    from storage.store import open_version, scene_dataset

    scene = scene_dataset(open_version(world.store), "a1")
    scene = scene.assign_attrs(rpc=None)
    labels = np.ones((64, 256), np.uint8)
    assert maps.write_geotiff(tmp_path / "a.tif", labels, scene, CLASSES, {}) == "none"
    assert "no georeference: the map is in pixels" in caplog.text
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(tmp_path / "a.tif") as source:
        assert source.crs is None


def test_refuses_a_scene_of_another_sensor(mapping):
    with pytest.raises(SchemaError, match="expected a scene of sensor hyperion"):
        predict(mapping("a1"))


def test_refuses_a_scene_that_is_not_there(mapping):
    with pytest.raises(SchemaError, match="zz is not in this version"):
        predict(mapping("zz"))
