"""`predict` of an image: the maps of the whole cube, with its grid, however it was cut off."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin

from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.cubes.raster import wavelengths
from hypersigma.mapping import scenes
from hypersigma.mapping.scenes import MapConfig, map_scene
from tests.hypersigma.tasks.commands import TRAIN, call, refusal
from tests.hypersigma.tasks.conftest import own_log_handlers

GRID = from_origin(500000, 5600000, 30, 30)
__all__ = ["own_log_handlers"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A segmentation's run on a made scene, and that scene as a GeoTIFF of integers."""
    folder = tmp_path_factory.mktemp("mapping")
    made = {"kind": "classes", "rows": 60, "columns": 44, "bands": 16}
    data = folder / "classes.yaml"
    data.write_text(yaml.safe_dump(
        {"title": "classes", "task": "any", "where": "made here", "synthetic": made}
    ))  # fmt: skip
    raw = {
        "run": str(folder / "run"), "task": "segmentation", "data": str(data), "mode": "both",
        "size": "tiny", "patch_size": 4, "split": {"n_per_class": 8, "block": 10, "guard": 1},
        "options": {"window": 16, "overlap": 8}, "train": TRAIN,
    }  # fmt: skip
    (folder / "task.yaml").write_text(yaml.safe_dump(raw))
    call("finetune", folder / "task.yaml")
    cube = read_benchmark(data).cube
    write_image(folder / "scene.tif", cube)
    return folder, cube


def write_image(path, cube, *, gap=True):
    """Write a cube as float32, 7 of its pixels without a measurement."""
    x_CHW = cube.x_HWC.transpose(2, 0, 1).astype("f4")
    if gap:
        x_CHW[:, 10, 3:10] = -9999
    with rasterio.open(
        path, "w", driver="GTiff", count=len(x_CHW), height=x_CHW.shape[1], width=x_CHW.shape[2],
        dtype="float32", nodata=-9999, crs="EPSG:32633", transform=GRID, tiled=True,
        blockxsize=16, blockysize=16,
    ) as file:  # fmt: skip
        file.write(x_CHW)
        for band in range(len(x_CHW)):
            file.update_tags(band + 1, wavelength=cube.wavelength[band])


def config(folder, out, **changes):
    raw = {"checkpoint": folder / "run", "out": out, "image": folder / "scene.tif"} | changes
    return MapConfig(**raw)


def yaml_of(path, found):
    plain = {name: str(value) for name, value in found.items()}
    path.write_text(yaml.safe_dump(plain))
    return path


def test_a_map_of_an_image_is_that_of_the_cube(trained, tmp_path):
    folder, cube = trained
    use = yaml_of(tmp_path / "map.yaml", {
        "checkpoint": folder / "run", "out": tmp_path / "map", "image": folder / "scene.tif",
    })  # fmt: skip
    found = call("predict", use)
    with np.load(folder / "run/maps.npz") as file:
        whole = dict(file)
    near = np.zeros(cube.sides, bool)  # windows that see a pixel without a measurement
    near[:26, :26] = True
    with rasterio.open(found["maps"]["class"]) as file:
        labels = file.read(1)
        assert (file.transform, file.crs.to_epsg(), file.shape) == (GRID, 32633, cube.sides)
        assert file.tags()["task"] == "segmentation"
        assert file.tags(1)["class_1"] == read_benchmark(folder / "classes.yaml").classes[0]
    with rasterio.open(found["maps"]["probability"]) as file:
        probability = file.read()
        assert np.isnan(probability[:, 10, 3:10]).all()
    np.testing.assert_allclose(probability[:, ~near], whole["probability"][:, ~near], atol=1e-5)
    assert (labels[10, 3:10] == 0).all()
    assert (labels > 0).sum() == labels.size - 7
    assert (labels == whole["class"])[~near].mean() > 0.999
    assert Path(found["preview"]).stat().st_size > 5000
    assert json.loads((tmp_path / "map/scene_segmentation.json").read_text()) == found
    assert sorted(path.name for path in (tmp_path / "map").iterdir()) == [
        "scene_segmentation.json", "scene_segmentation.png", "scene_segmentation_class.tif",
        "scene_segmentation_probability.tif",
    ]  # fmt: skip


def files(out):
    return {path.name: path.read_bytes() for path in out.glob("*.tif")}


def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(trained, tmp_path, monkeypatch):
    folder, _ = trained
    map_scene(config(folder, tmp_path / "whole"))
    append = scenes.Rows.append
    done = []

    def cut_off(self, *strip):
        append(self, *strip)
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(scenes.Rows, "append", cut_off)
        with pytest.raises(KeyboardInterrupt):
            map_scene(config(folder, tmp_path / "cut"))
    assert not files(tmp_path / "cut")
    seen = []
    monkeypatch.setattr(
        scenes.Rows, "append", lambda self, *strip: (seen.append(1), append(self, *strip))
    )
    map_scene(config(folder, tmp_path / "cut"))
    assert len(seen) == 7 - 3
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert not list((tmp_path / "cut").glob(".*"))


@pytest.mark.soak
def test_killed_at_any_instant_it_goes_on_to_the_same_bytes(trained, tmp_path):
    folder, _ = trained
    map_scene(config(folder, tmp_path / "whole"))
    use = yaml_of(tmp_path / "map.yaml", {
        "checkpoint": folder / "run", "out": tmp_path / "cut", "image": folder / "scene.tif",
        "workers": 0,
    })  # fmt: skip
    raw = yaml.safe_load(use.read_text()) | {"workers": 2}
    use.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "hypersigma", "predict", str(use)]
    for pause in np.random.default_rng(0).uniform(3, 12, 10):
        with subprocess.Popen(command, start_new_session=True) as process:
            time.sleep(pause)
            workers = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        _, alive = psutil.wait_procs(workers, 60)  # one may still be importing
        assert not alive
    subprocess.run(command, check=True)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_another_scene_begins_anew(trained, tmp_path, monkeypatch):
    folder, cube = trained
    with monkeypatch.context() as patched:
        patched.setattr(scenes, "_write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            map_scene(config(folder, tmp_path / "map"))
    write_image(folder / "scene.tif", cube)  # a file of that name, another time
    seen = []
    append = scenes.Rows.append
    monkeypatch.setattr(
        scenes.Rows, "append", lambda self, *strip: (seen.append(1), append(self, *strip))
    )
    map_scene(config(folder, tmp_path / "map"))
    assert len(seen) == 7


def test_one_process_at_a_time_makes_a_map(trained, tmp_path):
    folder, _ = trained
    path = tmp_path / "map/.scene_segmentation.rows"
    path.parent.mkdir()
    with scenes.alone(path), pytest.raises(ValueError, match="another process makes this map"):
        map_scene(config(folder, tmp_path / "map"))


def test_another_nodata_begins_anew(trained, tmp_path, monkeypatch):
    folder, _ = trained
    with monkeypatch.context() as patched:
        patched.setattr(scenes, "_write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            map_scene(config(folder, tmp_path / "map"))
    seen = []
    append = scenes.Rows.append
    monkeypatch.setattr(
        scenes.Rows, "append", lambda self, *strip: (seen.append(1), append(self, *strip))
    )
    map_scene(config(folder, tmp_path / "map", nodata=-1.0))
    assert len(seen) == 7


def test_workers_write_the_same_bytes(trained, tmp_path):
    folder, _ = trained
    for workers in (0, 2):
        map_scene(config(folder, tmp_path / str(workers), workers=workers))
    assert files(tmp_path / "0") == files(tmp_path / "2")


def test_an_image_of_other_bands_is_refused(trained, tmp_path):
    folder, cube = trained
    write_image(tmp_path / "few.tif", cube.without_bands([3]))
    use = yaml_of(tmp_path / "map.yaml", {
        "checkpoint": folder / "run", "out": tmp_path / "map", "image": tmp_path / "few.tif",
    })  # fmt: skip
    assert "few.tif: expected the 16 bands of" in refusal("predict", use)
    raw = yaml.safe_load(use.read_text()) | {"data": "salinas_a"}
    use.write_text(yaml.safe_dump(raw))
    assert "one of image, store, product and data" in refusal("predict", use)


@pytest.mark.parametrize(
    ("task", "kind", "there", "here"),
    [("anomaly_detection", "target", "score", "score"),
     ("target_detection", "target", "score", "score"),
     ("unmixing", "unmixing", "abundances", "abundance"),
     ("change_detection", "change", "probability", "probability")],
)  # fmt: skip
def test_each_task_of_a_scene_has_its_map(tmp_path, task, kind, there, here):
    made = {"kind": kind, "rows": 40, "columns": 28, "bands": 16}
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump(
        {"title": kind, "task": "any", "where": "made here", "synthetic": made}
    ))  # fmt: skip
    raw = {
        "run": str(tmp_path / "run"), "task": task, "data": str(data), "mode": "spatial",
        "size": "tiny", "patch_size": 4, "split": {"n_per_class": 8, "block": 10, "guard": 1},
        "options": {"window": 16, "overlap": 8}, "train": {**TRAIN, "steps": 2},
    }  # fmt: skip
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(raw))
    call("finetune", tmp_path / "task.yaml")
    benchmark, use = read_benchmark(data), {"checkpoint": tmp_path / "run", "out": tmp_path / "map"}
    for name, cube in (("image", benchmark.cube), ("other", benchmark.other)):
        if cube is not None:
            use[name] = tmp_path / f"{name}.tif"
            write_image(use[name], cube, gap=False)
    found = call("predict", yaml_of(tmp_path / "map.yaml", use))
    with np.load(tmp_path / "run/maps.npz") as file:
        whole = file[there]
    with rasterio.open(found["maps"][here]) as file:
        np.testing.assert_allclose(np.squeeze(file.read()), np.squeeze(whole), atol=1e-4)
    use = {"checkpoint": tmp_path / "run", "data": data, "out": tmp_path / "of_data"}
    found = call("predict", yaml_of(tmp_path / "map.yaml", use))
    with rasterio.open(found["maps"][here]) as file:
        np.testing.assert_allclose(np.squeeze(file.read()), np.squeeze(whole), atol=1e-4)
    if task == "change_detection":
        plain = yaml.safe_load(data.read_text())
        plain["synthetic"] |= {"kind": "classes"}
        data.write_text(yaml.safe_dump(plain))
        message = refusal("predict", yaml_of(tmp_path / "map.yaml", use))
        assert "expected two dates for a change detection, got one" in message


def test_of_two_dates_a_task_of_one_maps_the_first(trained, tmp_path):
    folder, _ = trained
    plain = yaml.safe_load((folder / "classes.yaml").read_text())
    plain["synthetic"] |= {"kind": "change"}
    (tmp_path / "dates.yaml").write_text(yaml.safe_dump(plain))
    found = map_scene(MapConfig(
        checkpoint=folder / "run", data=str(tmp_path / "dates.yaml"), out=tmp_path / "map"
    ))  # fmt: skip
    assert (found["height"], found["width"]) == (60, 44)


def test_a_scene_in_other_units_is_refused(trained, tmp_path):
    folder, _ = trained
    with pytest.raises(ValueError, match=r"scene\.tif: expected values .* the units differ"):
        map_scene(config(folder, tmp_path / "map", scale=0.001))


def test_a_scene_without_a_whole_pixel_is_refused(trained, tmp_path):
    folder, cube = trained
    x_HWC = cube.x_HWC.copy()
    x_HWC[:, :, 3] = np.nan
    write_image(tmp_path / "scene.tif", dataclasses.replace(cube, x_HWC=x_HWC))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"a measurement in all 16 bands, got none.*leave_out"):
            map_scene(config(folder, tmp_path / "map", image=tmp_path / "scene.tif"))


def test_a_cube_in_memory_has_its_map_too(trained, tmp_path):
    folder, _ = trained
    use = {"checkpoint": folder / "run", "data": folder / "classes.yaml", "out": tmp_path / "map"}
    found = call("predict", yaml_of(tmp_path / "map.yaml", use))
    with rasterio.open(found["maps"]["class"]) as file, np.load(folder / "run/maps.npz") as whole:
        assert (file.read(1) == whole["class"]).mean() > 0.999
    assert found["data"] == "classes"


def test_bands_that_training_left_out_are_left_out_of_the_scene(tmp_path):
    made = {"kind": "classes", "rows": 40, "columns": 40, "bands": 16}
    plain = {"title": "classes", "task": "any", "where": "made here"}
    (tmp_path / "made.yaml").write_text(yaml.safe_dump(plain | {"synthetic": made}))
    scene = read_benchmark(tmp_path / "made.yaml")
    x_HWC = scene.cube.x_HWC.copy()
    x_HWC[:, :, [0, 5]] = np.nan
    bad = dataclasses.replace(scene.cube, x_HWC=x_HWC)
    write_image(tmp_path / "scene.tif", bad, gap=False)
    np.save(tmp_path / "labels.npy", scene.labels_HW)
    described = plain | {
        "cube": {"file": "scene.tif"}, "labels": {"file": "labels.npy", "axes": "HW"},
        "leave_out": [[1, 1], [6, 6]], "classes": list(scene.classes),
    }  # fmt: skip
    (tmp_path / "described.yaml").write_text(yaml.safe_dump(described))
    raw = {
        "run": str(tmp_path / "run"), "task": "segmentation", "root": str(tmp_path),
        "data": str(tmp_path / "described.yaml"), "mode": "spatial", "size": "tiny",
        "patch_size": 4, "split": {"n_per_class": 8, "block": 10, "guard": 1},
        "options": {"window": 16, "overlap": 8}, "train": {**TRAIN, "steps": 2},
    }  # fmt: skip
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(raw))
    call("finetune", tmp_path / "task.yaml")
    use = {"checkpoint": tmp_path / "run", "image": tmp_path / "scene.tif", "out": tmp_path / "map"}
    found = call("predict", yaml_of(tmp_path / "map.yaml", use))
    with (
        rasterio.open(found["maps"]["probability"]) as file,
        np.load(tmp_path / "run/maps.npz") as whole,
    ):
        np.testing.assert_allclose(file.read(), whole["probability"], atol=1e-5)
    write_image(tmp_path / "few.tif", bad.without_bands([0, 5, 7]), gap=False)
    use["image"] = tmp_path / "few.tif"
    message = refusal("predict", yaml_of(tmp_path / "map.yaml", use))
    assert "expected the 14 bands of" in message
    assert "or these and the 2 that were left out, got 13" in message


def test_what_an_earlier_map_left_is_never_taken_for_this_ones(tmp_path):
    path = tmp_path / "a.rows"
    strip = np.zeros((2, 3, 4), np.float32), np.ones((3, 4), bool)
    with scenes.Rows(path, {"model": "a"}) as rows:
        rows.append(*strip)
    with scenes.Rows(path, {"model": "b"}):
        pass  # killed before its first note
    path.write_bytes(b"\1" * 4 * 3 * 3 * 4)
    with scenes.Rows(path, {"model": "a"}) as rows:
        assert rows.count == 0


def test_the_denoised_cube_of_a_scene(tmp_path):
    made = {"kind": "classes", "rows": 30, "columns": 120, "bands": 16}
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump(
        {"title": "classes", "task": "any", "where": "made here", "synthetic": made}
    ))  # fmt: skip
    raw = {
        "run": str(tmp_path / "run"), "task": "denoising", "data": str(data), "mode": "spatial",
        "size": "tiny", "patch_size": 4,
        "options": {"window": 16, "overlap": 8, "directions": 6},
        "train": {**TRAIN, "steps": 10},
    }  # fmt: skip
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(raw))
    call("finetune", tmp_path / "task.yaml")
    clean = read_benchmark(data).cube
    rng = np.random.default_rng(0)
    x_HWC = clean.x_HWC + rng.normal(0, 0.05, clean.x_HWC.shape)
    noisy = dataclasses.replace(clean, x_HWC=x_HWC.astype(np.float32))
    write_image(tmp_path / "scene.tif", noisy)
    use = {"checkpoint": tmp_path / "run", "image": tmp_path / "scene.tif", "out": tmp_path / "map"}
    found = call("predict", yaml_of(tmp_path / "map.yaml", use))
    with rasterio.open(found["maps"]["denoised"]) as file:
        denoised = file.read()
        assert (file.transform, file.crs.to_epsg()) == (GRID, 32633)
        assert np.isnan(denoised[:, 10, 3:10]).all()
        assert np.isfinite(denoised).sum() == denoised.size - 16 * 7
        np.testing.assert_allclose(wavelengths(file), clean.wavelength, atol=1e-5)
    before, after = (
        np.nanmean(np.square(one - clean.x_HWC.transpose(2, 0, 1)))
        for one in (x_HWC.transpose(2, 0, 1), denoised)
    )
    assert after < 0.25 * before
    # It is a scene itself.
    again = MapConfig(
        checkpoint=tmp_path / "run", image=Path(found["maps"]["denoised"]), out=tmp_path / "again"
    )
    assert map_scene(again)["height"] == 30
