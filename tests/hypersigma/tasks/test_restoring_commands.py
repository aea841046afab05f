"""Unmixing, denoising and super-resolution in each mode through the commands."""

import json

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

import configs
from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.cubes.splits import load_split
from hypersigma.metrics import restoration_report, unmixing_report
from hypersigma.tasks import denoising, super_resolution, unmixing
from hypersigma.tasks.restored import box
from hypersigma.tasks.task import TaskConfig
from tests.hypersigma.tasks.commands import TRAIN, call, refusal

MODES = ["spatial", "spectral", "both"]
WIDE = {"rows": 24, "columns": 96}


def use(tmp_path, **more):
    """Write what `evaluate` and `predict` read."""
    path = tmp_path / "use.yaml"
    path.write_text(yaml.safe_dump({"checkpoint": str(tmp_path / "run"), **more}))
    return path


def trained(config, tmp_path):
    """Train, and evaluate what was saved; return the numbers and the maps."""
    summary = call("finetune", config)
    evaluated = call("evaluate", use(tmp_path, out=str(tmp_path / "evaluated")))
    assert evaluated["metrics"] == pytest.approx(summary["metrics"], rel=1e-4)
    return summary["metrics"], maps_in(tmp_path / "run" / "maps.npz")


def maps_in(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def checked(config) -> TaskConfig:
    return configs.load(TaskConfig, config)


def losses(tmp_path) -> list[float]:
    """Return the loss of every step."""
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("mode", MODES)
def test_unmixing(mode, scene, task_config, tmp_path):
    data = scene("unmixing", noise=0.005)
    options = {"window": 16, "overlap": 8, "start": "vca"}
    config = task_config(
        "unmixing", data, mode, options=options, patch_size=8, train={**TRAIN, "steps": 60}
    )
    numbers, maps = trained(config, tmp_path)
    truth = read_benchmark(data)
    np.testing.assert_allclose(maps["abundances"].sum(0), 1, atol=1e-4)
    assert maps["abundances"].min() >= 0
    even = np.full_like(truth.abundances_EHW, 1 / len(truth.abundances_EHW))
    trivial = np.sqrt(np.square(even - truth.abundances_EHW).mean())
    assert numbers["rmse"] < 0.6 * trivial
    assert numbers["sad"] < 0.15
    again = unmixing_report(
        maps["endmembers"], truth.endmembers_CE.T, maps["abundances"].reshape(4, -1),
        truth.abundances_EHW.reshape(4, -1),
    )  # fmt: skip
    assert again["rmse"] == pytest.approx(numbers["rmse"], rel=1e-4)
    predicted = call("predict", use(tmp_path, out=str(tmp_path / "predicted")))
    for name, one in maps_in(predicted["maps"]).items():
        np.testing.assert_allclose(one, maps[name], atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "noise"), [("spatial", "gaussian"), ("spectral", "mixture"), ("both", "stripe")]
)
def test_denoising(mode, noise, scene, task_config, tmp_path):
    data = scene("classes", **WIDE)
    options = {"noise": noise, "window": 16, "overlap": 8, "directions": 6, "width": 32}
    config = task_config(
        "denoising", data, mode, options=options, patch_size=8,
        train={**TRAIN, "steps": 40, "eval_every": 20},
    )  # fmt: skip
    numbers, maps = trained(config, tmp_path)
    truth = read_benchmark(data).cube.physical_CHW()
    split = load_split(tmp_path / "run" / "split.npz", truth.shape[1:])
    assert not (split.train_HW & split.test_HW).any()
    where = box(split.test_HW)
    chosen, benchmark = checked(config), read_benchmark(data)
    measure = denoising.prepare(chosen, benchmark).metrics
    low_rank = measure(denoising.baseline(chosen, benchmark))["psnr"]
    noisy = measure({"denoised": denoising.observed(chosen, benchmark)})["psnr"]
    assert numbers["psnr"] > low_rank > noisy
    assert numbers["sam"] == pytest.approx(
        restoration_report(maps["denoised"][:, *where], truth[:, *where], peak=1)["sam"], rel=1e-4
    )
    seen = losses(tmp_path)
    assert np.mean(seen[-10:]) < 0.99 * np.mean(seen[:10])  # training is worth something

    predicted = call("predict", use(tmp_path, out=str(tmp_path / "predicted")))
    as_it_is = maps_in(predicted["maps"])["denoised"]
    assert np.abs(as_it_is - truth).mean() < np.abs(maps["denoised"] - truth).mean()


@pytest.mark.parametrize(
    ("mode", "ratio", "window"), [("spatial", 4, 4), ("spectral", 2, 8), ("both", 2, 8)]
)
def test_super_resolution(mode, ratio, window, scene, task_config, tmp_path):
    data = scene("classes", **WIDE)
    options = {
        "ratio": ratio, "window": window, "overlap": window // 2, "directions": 6, "width": 32,
    }  # fmt: skip
    config = task_config(
        "super_resolution", data, mode, options=options, patch_size=window // 2,
        train={**TRAIN, "steps": 30},
    )  # fmt: skip
    numbers, maps = trained(config, tmp_path)
    truth = read_benchmark(data).cube.physical_CHW()
    assert maps["enlarged"].shape == truth.shape
    split = load_split(tmp_path / "run" / "split.npz", truth.shape[1:])
    where = box(split.test_HW)
    bicubic = super_resolution.baseline(checked(config), read_benchmark(data))["enlarged"]
    error, trivial = (
        np.sqrt(np.square(one - truth)[:, *where].mean()) for one in (maps["enlarged"], bicubic)
    )
    assert error < 0.98 * trivial
    assert numbers["ergas"] == pytest.approx(
        restoration_report(
            maps["enlarged"][:, *where], truth[:, *where], peak=1, ratio=ratio
        )["ergas"], rel=1e-3,
    )  # fmt: skip
    predicted = call("predict", use(tmp_path, out=str(tmp_path / "predicted")))
    larger = maps_in(predicted["maps"])["enlarged"]
    assert larger.shape == (truth.shape[0], truth.shape[1] * ratio, truth.shape[2] * ratio)


@pytest.mark.parametrize(
    ("task", "made", "options", "words"),
    [
        ("super_resolution", {"rows": 30, "columns": 98}, {"ratio": 4, "window": 4, "overlap": 2},
         "ratio 4 does not divide an image of 30 x 98 px; cut it to 28 x 96 px"),
        ("super_resolution", {"rows": 24, "columns": 96}, {"ratio": 4, "window": 8, "overlap": 4},
         "at least 8 x 8 px for the window, got 5 x 13"),
        ("denoising", {"rows": 24, "columns": 24}, {},
         "got 24 x 24 px; take a larger one"),
        ("denoising", WIDE, {"window": 18, "overlap": 9},
         "expected windows of whole 4 px patches, got 18 x 18"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(task, made, options, words, scene, task_config):
    data = scene("unmixing", **made)
    assert words in refusal("finetune", task_config(task, data, "spatial", options=options))


@pytest.mark.parametrize("start", ["nfindr", "vca"])
def test_more_endmembers_than_bands_are_refused(start):
    with pytest.raises(ValueError, match="from 2 to 16 endmembers of 1024 pixels in 16 bands, got"):
        unmixing.found_spectra(np.ones((16, 1024)), 17, start, 0)


def test_the_last_rows_and_columns_are_cut_if_asked(scene, task_config):
    data = scene("classes", rows=26, columns=97)
    options = {"ratio": 4, "cut": True}
    config = checked(task_config("super_resolution", data, "spatial", options=options))
    assert super_resolution.observed(config, read_benchmark(data)).shape == (16, 6, 24)
    assert super_resolution.baseline(config, read_benchmark(data))["enlarged"].shape[1:] == (24, 96)


def test_a_config_can_be_written_down(task_config, scene):
    config = checked(task_config("unmixing", scene("unmixing"), "both"))
    plain = TypeAdapter(TaskConfig).dump_python(config, mode="json")
    assert configs.check(TaskConfig, plain, where="here") == config


@pytest.mark.parametrize("task", ["unmixing", "denoising", "super_resolution"])
def test_bands_without_measurement_are_refused(task, task_config, tmp_path):
    x = np.random.default_rng(0).random((24, 96, 12)).astype("f4")
    x[:, :, 4] = np.nan
    config = task_config(task, written(tmp_path, cube=x), "spatial", root=str(tmp_path))
    message = refusal("finetune", config)
    assert "expected measurements in all 12 bands, got none in 1 of them" in message
    assert "leave" in message


def test_endmembers_of_other_bands_are_refused(task_config, tmp_path):
    rng = np.random.default_rng(0)
    data = written(tmp_path, cube=rng.random((24, 24, 12)), endmembers=rng.random((11, 3)))
    message = refusal("finetune", task_config("unmixing", data, "both", root=str(tmp_path)))
    assert "expected endmembers of the cube's 12 bands, got 11; resample" in message


def written(tmp_path, **arrays):
    """Write arrays into one file each, and the YAML file that names them."""
    plain = {"title": "A scene", "task": "any", "where": "made here"}
    for name, array in arrays.items():
        np.savez(tmp_path / f"{name}.npz", array=array)
        plain[name] = {"file": f"{name}.npz", "axes": "CE" if name == "endmembers" else "HWC"}
    path = tmp_path / "scene.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path
