"""Input that does not fit: one line that names both sides and the way out."""

import numpy as np
import pytest
import yaml

from tests.hypersigma.tasks.commands import refusal

SIDES, BANDS = (12, 10), 6


@pytest.fixture
def files(tmp_path, task_config):
    """Return a function that writes arrays, a YAML file that names them, and a run's config."""

    def write(task, *, cube=None, other=None, labels=None, classes=("a", "b"), **changes):
        rng = np.random.default_rng(0)
        entry = {"title": "made", "task": task, "where": "made here", "classes": list(classes)}
        cube = rng.uniform(0.1, 1, (*SIDES, BANDS)) if cube is None else cube
        for name, array, axes in (
            ("cube", cube, "HWC"), ("other", other, "HWC"), ("labels", labels, "HW"),
        ):  # fmt: skip
            if array is not None:
                np.save(tmp_path / f"{name}.npy", array)
                entry[name] = {"file": f"{name}.npy", "axes": axes}
        data = tmp_path / "made.yaml"
        data.write_text(yaml.safe_dump(entry))
        return task_config(task, data, "spatial", root=str(tmp_path), **changes)

    return write


def labelled(sides=SIDES, classes=2):
    return np.arange(np.prod(sides)).reshape(sides) % classes + 1


def says(message, *words):
    for word in words:
        assert str(word) in message, message


def test_labels_of_another_size(files):
    message = refusal("finetune", files("segmentation", labels=labelled((14, 10))))
    says(message, "12, 10", "14, 10", "crop")


def test_bands_without_a_number(files):
    cube = np.ones((*SIDES, BANDS))
    cube[:, :, 4] = np.nan
    says(
        refusal("finetune", files("segmentation", cube=cube, labels=labelled())),
        6,
        "leave_out: [[5, 5]]",
    )


def test_cells_of_no_whole_patches(files):
    options = {"window": 12, "overlap": 6}
    config = files(
        "segmentation", labels=labelled(), options=options, cell_size=6,
        split={"n_per_class": 2, "disjoint": False},
    )  # fmt: skip
    config.write_text(config.read_text().replace("mode: spatial", "mode: both"))
    says(refusal("finetune", config), "whole 4 px patches", "6 px", "`cell_size`")


def test_a_window_without_a_middle(files):
    config = files("patch_classification", labels=labelled(), options={"window": 8})
    says(refusal("finetune", config, code=2), "window", "an odd number", 8)


def test_labels_that_are_no_numbers_of_classes(files):
    for wrong in (np.where(labelled() == 1, -1, 2), np.where(labelled() == 1, np.nan, 2)):
        message = refusal("finetune", files("segmentation", labels=wrong))
        says(message, "labels 0, 1, 2", "60 of 120", "values:")


def test_more_than_two_classes_of_change(files):
    cube = np.random.default_rng(0).uniform(0.1, 1, (*SIDES, BANDS))
    config = files("change_detection", cube=cube, other=cube, labels=labelled(classes=3),
                   classes=["a", "b", "c"])  # fmt: skip
    says(refusal("finetune", config), "two classes", "'c'", "values:")


def test_targets_larger_than_windows(files):
    config = files("anomaly_detection", labels=labelled() - 1, classes=["t"],
                   options={"window": 4, "overlap": 2})  # fmt: skip
    says(refusal("finetune", config), "4 px", "5 px", "options.side")


def test_another_number_of_endmembers_than_is_true(scene, task_config):
    options = {"window": 16, "overlap": 8, "endmembers": 5}
    message = refusal("finetune", task_config("unmixing", scene("unmixing"), "spatial",
                                              options=options))  # fmt: skip
    says(message, "as its truth has, 4", "endmembers: 5")


def test_cells_where_the_whole_window_is_seen(files):
    config = files("patch_classification", labels=labelled(), options={"window": 9}, cell_size=3)
    says(refusal("finetune", config), "cell_size", "leave it out")


@pytest.mark.parametrize(("name", "content"), [
    ("cube.npy", b""), ("cube.npz", b"PK"), ("cube.mat", b""),
])  # fmt: skip
def test_damaged_files(files, tmp_path, name, content):
    config = files("segmentation", labels=labelled())
    (tmp_path / name).write_bytes(content)
    data = tmp_path / "made.yaml"
    data.write_text(data.read_text().replace("cube.npy", name))
    says(refusal("finetune", config), name, "a file of arrays of numbers", "fetch it again")


def test_one_class_only(files):
    message = refusal("finetune", files("segmentation", labels=labelled(classes=1)))
    says(message, "two classes", "[1]")


def test_no_labels(files):
    says(refusal("finetune", files("segmentation")), "expected labels", "`labels`")


def test_a_library_target_of_another_length(files, tmp_path):
    (tmp_path / "target.txt").write_text("nm value\n900, 0.1\n1000, 0.2\n")
    options = {"window": 8, "overlap": 4, "target": {"library": str(tmp_path / "target.txt")}}
    config = files("target_detection", labels=labelled() - 1, classes=["t"], options=options)
    says(refusal("finetune", config), "target.txt", "wavelengths")


def test_no_target(files):
    config = files("target_detection", labels=labelled() - 1, classes=["t"])
    says(refusal("finetune", config), "target spectrum", "from_mask", "library")


def test_target_pixels_beyond_the_image(files):
    options = {"window": 8, "overlap": 4, "target": {"pixels": [[3, 10]]}}
    config = files("target_detection", labels=labelled() - 1, classes=["t"], options=options)
    says(refusal("finetune", config), "12 x 10", "[[3, 10]]")


def test_dates_of_unequal_shape(files):
    config = files("change_detection", other=np.ones((12, 11, BANDS)), labels=labelled())
    says(refusal("finetune", config), "(12, 10, 6)", "(12, 11, 6)", "grid")


def test_one_date_only(files):
    says(refusal("finetune", files("change_detection", labels=labelled())), "two dates", "`other`")


@pytest.mark.parametrize("task", ["anomaly_detection", "target_detection"])
def test_an_empty_mask(files, task):
    config = files(task, labels=np.zeros(SIDES, int), classes=["t"])
    says(refusal("finetune", config), 120, "key")


def test_a_mask_of_everything(files):
    config = files("anomaly_detection", labels=np.ones(SIDES, int), classes=["t"])
    says(refusal("finetune", config), "120 targets in 120", "key")


def test_windows_that_are_not_whole_patches(files):
    options = {"window": 10, "overlap": 4}
    split = {"n_per_class": 2, "disjoint": False}
    config = files("segmentation", labels=labelled(), options=options, split=split)
    says(refusal("finetune", config), "4 px patches", "10 x 10", "multiple")


def test_an_unknown_option(files):
    from typer.testing import CliRunner

    from hypersigma.__main__ import app

    config = files("segmentation", labels=labelled(), options={"widnow": 8})
    result = CliRunner().invoke(app, ["finetune", str(config)])
    assert result.exit_code == 2
    says(result.stderr, "widnow", "did you mean 'window'")
