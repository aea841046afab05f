"""Each task in each mode through the commands, against what is trivial."""

import json

import numpy as np
import pytest
import torch
import yaml

import configs
from hypersigma import checkpoint
from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.cubes.splits import load_split
from hypersigma.metrics import detection_report
from hypersigma.tasks.cubetasks import CUBE_TASKS
from hypersigma.tasks.task import TaskConfig
from tests.hypersigma.tasks.commands import TRAIN, call, refusal

FASTER = {**TRAIN, "steps": 40, "optim": {"blr": 0.512, "warmup_steps": 4}}
LONGER = {"train": {**TRAIN, "steps": 40}}
MODES = ["spatial", "spectral", "both"]


def use(tmp_path, **more):
    """Write what `evaluate` and `predict` read."""
    path = tmp_path / "use.yaml"
    path.write_text(yaml.safe_dump({"checkpoint": str(tmp_path / "run"), **more}))
    return path


def whole_way(config, tmp_path):
    """Train, evaluate and predict; return the training's numbers and the prediction's maps."""
    summary = call("finetune", config)
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert written["metrics"] == summary["metrics"]
    with np.load(tmp_path / "run" / "maps.npz", allow_pickle=False) as file:
        trained = dict(file)
    evaluated = call("evaluate", use(tmp_path, out=str(tmp_path / "evaluated")))
    assert evaluated["metrics"] == pytest.approx(summary["metrics"], abs=1e-6)
    predicted = call("predict", use(tmp_path, out=str(tmp_path / "predicted")))
    with np.load(predicted["maps"], allow_pickle=False) as file:
        maps = dict(file)
    assert maps.keys() == trained.keys()
    for name, one in maps.items():
        np.testing.assert_allclose(one, trained[name], atol=1e-5)
    return summary["metrics"], maps


def implant_loss(config, run, *, corrected):
    """Return a trained detector's loss over the same put-in targets, with its correction or not."""
    loaded = configs.load(TaskConfig, config)
    prepared = CUBE_TASKS[loaded.task].prepare(loaded, read_benchmark(loaded.data))
    model, batches = prepared.model.eval(), prepared.batches(None)
    model.load_state_dict(checkpoint.find(run).weights())
    model.correction *= corrected
    with torch.no_grad():
        return np.mean([
            prepared.losses(model, next(batches)[0], torch.Generator().manual_seed(number))["loss"]
            for number in range(8)
        ])  # fmt: skip


def commonest(data, tmp_path):
    """Return the accuracy on the test pixels of saying the commonest training class everywhere."""
    labels_HW = read_benchmark(data).labels_HW
    split = load_split(tmp_path / "run" / "split.npz", labels_HW.shape)
    assert not (split.train_HW & split.test_HW).any()
    shares = np.bincount(labels_HW[split.test_HW]) / split.test_HW.sum()
    return shares.max()


@pytest.mark.parametrize("mode", MODES)
def test_segmentation(mode, scene, task_config, tmp_path):
    data = scene("classes", noise=0.03, light=0.2)
    numbers, maps = whole_way(task_config("segmentation", data, mode), tmp_path)
    assert numbers["oa"] > commonest(data, tmp_path) + 0.3
    assert maps["class"].shape == (32, 32)
    np.testing.assert_allclose(maps["probability"].sum(0), 1, atol=1e-5)


@pytest.mark.parametrize(("mode", "components"), [("spatial", 6), ("spectral", None)])
def test_segmentation_by_components_or_large_cells(mode, components, scene, task_config, tmp_path):
    data = scene("classes", noise=0.03, light=0.2)
    options = {"window": 16, "overlap": 8, "components": components}
    config = task_config("segmentation", data, mode, options=options, cell_size=8)
    numbers, _ = whole_way(config, tmp_path)
    assert numbers["oa"] > commonest(data, tmp_path) + 0.3


@pytest.mark.parametrize("mode", MODES)
def test_patch_classification(mode, scene, task_config, tmp_path):
    data = scene("classes", noise=0.03, light=0.2)
    options = {"window": 9, "components": 6 if mode == "spatial" else None}
    config = task_config(
        "patch_classification", data, mode, options=options, patch_size=3,
        train={**LONGER["train"], "batch_size": 16, "optim": {"blr": 0.064, "warmup_steps": 4}},
    )  # fmt: skip
    numbers, maps = whole_way(config, tmp_path)
    assert numbers["oa"] > commonest(data, tmp_path) + 0.3
    np.testing.assert_allclose(maps["probability"].sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_change_detection(mode, scene, task_config, tmp_path):
    data = scene("change", rows=48, columns=48)
    numbers, maps = whole_way(task_config("change_detection", data, mode, **LONGER), tmp_path)
    # Who says of every pixel that it changed has a recall of 1 and this precision.
    labels_HW = read_benchmark(data).labels_HW
    split = load_split(tmp_path / "run" / "split.npz", labels_HW.shape)
    share = (labels_HW[split.test_HW] == 2).mean()
    assert numbers["f1"] > 2 * share / (1 + share) + 0.2
    assert set(np.unique(maps["class"])) == {1, 2}


def test_change_detection_of_four_bands(scene, task_config, tmp_path):
    """Two dates of a multispectral sensor, as files."""
    made = read_benchmark(scene("change", bands=8, rows=48, columns=48))
    for name, array in (
        ("cube", made.cube.x_HWC[:, :, ::2]), ("other", made.other.x_HWC[:, :, ::2]),
        ("labels", made.labels_HW),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", array)
    data = tmp_path / "dates.yaml"
    data.write_text(yaml.safe_dump({
        "title": "dates", "task": "change_detection", "where": "made here",
        "classes": ["same", "changed"], "cube": {"file": "cube.npy", "axes": "HWC"},
        "other": {"file": "other.npy", "axes": "HWC"},
        "labels": {"file": "labels.npy", "axes": "HW"},
    }))  # fmt: skip
    config = task_config("change_detection", data, "both", root=str(tmp_path), **LONGER)
    numbers = call("finetune", config)["metrics"]
    assert numbers["f1"] > 0.5


def test_a_run_of_other_labels_is_another_run(scene, task_config, tmp_path):
    made = read_benchmark(scene("classes"))
    np.save(tmp_path / "cube.npy", made.cube.x_HWC)
    np.save(tmp_path / "labels.npy", made.labels_HW)
    data = tmp_path / "files.yaml"
    data.write_text(yaml.safe_dump({
        "title": "files", "task": "segmentation", "where": "made here",
        "cube": {"file": "cube.npy", "axes": "HWC"}, "labels": {"file": "labels.npy", "axes": "HW"},
        "classes": list(made.classes),
    }))  # fmt: skip
    train = {**TRAIN, "steps": 2}
    config = task_config("segmentation", data, "spatial", root=str(tmp_path), train=train)
    call("finetune", config)
    assert "metrics" in call("evaluate", use(tmp_path))
    np.save(tmp_path / "labels.npy", made.labels_HW % 2 + 1)
    assert "expected the data of the run" in refusal("evaluate", use(tmp_path))
    assert "another" in refusal("finetune", config)
    message = refusal("evaluate", use(tmp_path, data=str(scene("classes"))))
    assert "expected out:" in message
    plain = yaml.safe_load(data.read_text())
    plain["classes"][0] = "tundra"
    (tmp_path / "tundra.yaml").write_text(yaml.safe_dump(plain))
    other = {"data": str(tmp_path / "tundra.yaml"), "out": str(tmp_path / "other")}
    assert "expected classes" in refusal("evaluate", use(tmp_path, **other))


@pytest.mark.parametrize("mode", MODES)
def test_anomaly_detection(mode, scene, task_config, tmp_path):
    data = scene("target", rows=40, columns=40)
    config = task_config("anomaly_detection", data, mode, train=FASTER)
    numbers, maps = whole_way(config, tmp_path)
    assert numbers["auc_d_f"] > 0.5 + 0.3
    # The statistic alone is a good score: what was learnt has to add to it.
    with_it, without = (
        implant_loss(config, tmp_path / "run", corrected=one) for one in (True, False)
    )
    assert with_it < without
    benchmark = read_benchmark(data)
    again = detection_report(maps["score"], benchmark.labels_HW > 0)
    assert again["auc_d_f"] == pytest.approx(numbers["auc_d_f"])


@pytest.mark.parametrize("mode", MODES)
def test_target_detection(mode, scene, task_config, tmp_path):
    data = scene("target", rows=40, columns=40, noise=0.05)
    config = task_config("target_detection", data, mode, train=FASTER)
    numbers, maps = whole_way(config, tmp_path)
    assert numbers["auc_d_f"] > 0.5 + 0.3
    # The statistic alone is a good score: what was learnt has to add to it.
    with_it, without = (
        implant_loss(config, tmp_path / "run", corrected=one) for one in (True, False)
    )
    assert with_it < without
    assert maps["score"].shape == (40, 40)
