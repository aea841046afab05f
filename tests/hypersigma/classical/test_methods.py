import dataclasses

import numpy as np
import pytest

from hypersigma.classical.classifiers import fit_cnn, fit_svm
from hypersigma.classical.methods import METHODS, threshold
from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.cubes.splits import SplitConfig, draw_split
from hypersigma.metrics import detection_report, unmixing_report
from tests.hypersigma.classical.real import DATA

SPLIT = SplitConfig(block=15, guard=2)


def made(kind):
    return read_benchmark(f"synthetic_{kind}")


@pytest.fixture
def few_trees(monkeypatch):
    monkeypatch.setattr("hypersigma.classical.classifiers.TREES", 30)
    monkeypatch.setattr("hypersigma.classical.classifiers.CNN_STEPS", 60)
    monkeypatch.setattr("hypersigma.classical.classifiers.SVM_GRID", {"C": [10], "gamma": [0.01]})


@pytest.mark.parametrize("name", METHODS["segmentation"])
def test_classes_of_pixels_on_other_ground(name, few_trees):
    scene = made("classes")
    split = draw_split(scene.labels_HW, SPLIT)
    found = METHODS["segmentation"][name](scene, split, 0)["class"]
    right = (found == scene.labels_HW)[split.test_HW].mean()
    assert right > 0.75  # most pixels are mixtures; by chance it is 0.25
    again = METHODS["segmentation"][name](scene, split, 0)["class"]
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("name", METHODS["change_detection"])
def test_changes(name, few_trees):
    scene = made("change")
    split = draw_split(scene.labels_HW, SPLIT)
    found = METHODS["change_detection"][name](scene, split, 0)["class"]
    recall = [
        (found == scene.labels_HW)[split.test_HW & (scene.labels_HW == k)].mean() for k in (1, 2)
    ]
    assert np.mean(recall) > 0.65  # light differs between the dates; by chance it is 0.5


@pytest.mark.parametrize("name", METHODS["target_detection"])
def test_targets(name):
    scene = made("target")
    score = METHODS["target_detection"][name](scene, None, 0)["score"]
    area = detection_report(score, scene.labels_HW > 0)["auc_d_f"]
    assert area > (0.6 if name == "sam" else 0.95)
    with pytest.raises(ValueError, match="expected a target spectrum, got none"):
        METHODS["target_detection"][name](dataclasses.replace(scene, target_C=None), None, 0)


@pytest.mark.parametrize("name", METHODS["anomaly_detection"])
def test_anomalies(name):
    scene = made("target")
    score = METHODS["anomaly_detection"][name](scene, None, 0)["score"]
    assert detection_report(score, scene.labels_HW > 0)["auc_d_f"] > 0.9


@pytest.mark.parametrize("name", METHODS["unmixing"])
def test_unmixing(name):
    scene = made("unmixing")
    found = METHODS["unmixing"][name](scene, None, 0)
    report = unmixing_report(
        found["endmembers"], scene.endmembers_CE.T,
        found["abundances"].reshape(4, -1), scene.abundances_EHW.reshape(4, -1),
    )  # fmt: skip
    even = np.sqrt(np.square(scene.abundances_EHW - 0.25).mean())
    assert report["rmse"] < 0.8 * even
    assert report["sad"] < 0.2


def test_gaps_do_not_count():
    scene = made("target")
    cube = scene.cube
    gaps = cube.x_HWC.copy()
    gaps[0, :] = np.nan
    valid = cube.valid_HW.copy()
    valid[0] = False
    holed = dataclasses.replace(scene, cube=dataclasses.replace(cube, x_HWC=gaps, valid_HW=valid))
    score = METHODS["anomaly_detection"]["rx"](holed, None, 0)["score"]
    np.testing.assert_allclose(score[0], 0, atol=1e-6)


def test_a_threshold_parts_the_training_pixels():
    assert threshold(np.array([1.0, 2, 3, 8, 9]), np.array([0, 0, 0, 1, 1], bool)) == 5.5
    assert threshold(np.array([5.0, 1.0]), np.array([False, True])) < 1  # better all than wrong


def test_what_cannot_be_is_refused():
    x, few = np.random.default_rng(0).normal(size=(5, 20)), np.array([1, 1, 1, 1, 2])
    with pytest.raises(ValueError, match="two training pixels a class or more, got 1"):
        fit_svm(x, few, 0)
    with pytest.raises(ValueError, match="13 bands or more, got 12"):
        fit_cnn(x[:, :12], few, 0)
    with pytest.raises(ValueError, match="expected labels and a split of them"):
        METHODS["segmentation"]["svm"](made("classes"), None, 0)
    scene = made("classes")
    split = draw_split(scene.labels_HW, SPLIT)
    with pytest.raises(ValueError, match="expected two dates, got one"):
        METHODS["change_detection"]["cva"](scene, split, 0)


@pytest.mark.skipif(DATA is None, reason="needs the measured scenes")
def test_few_labels_of_a_measured_scene():
    scene = read_benchmark("salinas_a", DATA)
    split = draw_split(scene.labels_HW, SplitConfig())
    found = METHODS["segmentation"]["svm"](scene, split, 0)["class"]
    assert (found == scene.labels_HW)[split.test_HW].mean() > 0.9
