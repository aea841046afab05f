import dataclasses
import hashlib

import numpy as np
import pytest
import scipy.io
import yaml

import configs
from configs import ConfigError
from hypersigma.cubes.benchmarks import BenchmarkConfig, check, read_benchmark
from tests.hypersigma.classical.real import DATA

NAMES = sorted(path.stem for path in (configs.CONFIG_DIR / "data").glob("*.yaml"))
HERE = ["abu_airport_1", "abu_airport_2", "abu_urban_1", "gf5b_crop", "hydice_urban",
        "jasper_ridge", "salinas_a", "salton_sea"]  # fmt: skip
RNG = np.random.default_rng(0)
CUBE = RNG.integers(1, 900, (12, 15, 9)).astype("u2")
LABELS = RNG.integers(0, 3, (12, 15))


@pytest.fixture
def scene(tmp_path):
    """Write a scene and what says of it; return a function that reads it with changes."""
    scipy.io.savemat(tmp_path / "cube.mat", {"img": CUBE})
    border = np.pad(LABELS, 2)
    scipy.io.savemat(tmp_path / "gt.mat", {"gt": np.array([0, 7, 9])[border]})
    plain = {
        "title": "A scene", "task": "segmentation", "where": "from the shelf",
        "cube": {"file": "far/cube.mat"},
        "labels": {"file": "gt.mat", "crop": [2, 2, 12, 15]}, "values": [7, 9],
        "classes": ["grass", "road"],
    }  # fmt: skip

    def read(**changes):
        path = tmp_path / "scene.yaml"
        path.write_text(yaml.safe_dump(plain | changes))
        return read_benchmark(path, tmp_path)

    return read


@pytest.mark.parametrize("name", NAMES)
def test_each_shipped_scene_is_described(name):
    config = configs.load(BenchmarkConfig, f"data/{name}")
    assert config.where
    assert (config.cube is None) != (config.synthetic is None)
    if config.values is not None:
        assert len(config.values) == len(config.classes)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("synthetic")])
def test_each_made_scene_is_made_again(name):
    first, again = (read_benchmark(name) for _ in range(2))
    np.testing.assert_array_equal(first.cube.x_HWC, again.cube.x_HWC)
    np.testing.assert_allclose(first.abundances_EHW.sum(0), 1)
    assert first.labels_HW.max() == len(first.classes)


def test_a_made_change_is_where_the_truth_says():
    found = read_benchmark("synthetic_change")
    away = np.abs(found.cube.physical_CHW() - found.other.physical()).mean(0)
    assert away[found.labels_HW == 2].mean() > 2 * away[found.labels_HW == 1].mean()


@pytest.mark.skipif(DATA is None, reason="needs the measured scenes")
@pytest.mark.parametrize("name", HERE)
def test_measured_scenes_are_read(name):
    found = read_benchmark(name, DATA)
    assert found.cube.valid_HW.all()
    assert len(found.cube.wavelength) == found.cube.bands
    assert found.cube.source["sha256"]
    if name == "salinas_a":
        assert np.bincount(found.labels_HW.ravel()).tolist() == [
            1790, 391, 1343, 616, 1525, 674, 799
        ]  # fmt: skip
    if name == "jasper_ridge":
        mixed = np.tensordot(found.endmembers_CE, found.abundances_EHW, 1)
        error = np.abs(found.cube.physical_CHW() - mixed).mean()
        turned = np.abs(found.cube.physical_CHW() - mixed.transpose(0, 2, 1)).mean()
        assert error < 0.3 * turned  # neither is transposed


def test_what_is_asked_for_is_taken(scene):
    found = scene()
    np.testing.assert_array_equal(found.cube.x_HWC, CUBE)
    np.testing.assert_array_equal(found.labels_HW, LABELS)
    assert (found.name, found.task, found.classes) == ("scene", "segmentation", ("grass", "road"))
    assert scene(leave_out=[[1, 2], [9, 9]]).cube.bands == 6
    even = {"first": 400, "last": 1300, "count": 10, "absent": [[4, 4]]}
    assert scene(wavelengths=even).cube.wavelength.tolist() == [
        400, 500, 600, 800, 900, 1000, 1100, 1200, 1300
    ]  # fmt: skip


def test_another_file_is_refused(scene, tmp_path):
    right = hashlib.sha256((tmp_path / "cube.mat").read_bytes()).hexdigest()
    assert scene(cube={"file": "cube.mat", "sha256": right}).cube.source["sha256"] == right
    with pytest.raises(ValueError, match=f"SHA-256 {'0' * 64}, got {right}"):
        scene(cube={"file": "cube.mat", "sha256": "0" * 64})
    with pytest.raises(FileNotFoundError, match="A scene, found none; get it: from the shelf"):
        scene(cube={"file": "other.mat"})
    with pytest.raises(ConfigError, match="expected cube: or synthetic:"):
        scene(cube=None)
    with pytest.raises(ConfigError, match=r"did you mean 'data/salinas_a'"):
        read_benchmark("salinasa")


def test_what_does_not_fit_the_cube_is_refused(scene, tmp_path):
    with pytest.raises(ValueError, match=r"\(12, 15\) pixels, got \(16, 19\); say crop"):
        scene(labels={"file": "gt.mat"})
    with pytest.raises(ValueError, match=r"classes 0\.\.1 as named, got 2"):
        scene(classes=["grass"])
    with pytest.raises(ValueError, match="expected labelled pixels, got none of 180"):
        scene(values=[100, 101])
    with pytest.raises(ValueError, match="9 bands of the file, got wavelengths: of 10"):
        scene(wavelengths={"first": 400, "last": 1300, "count": 10})
    scipy.io.savemat(tmp_path / "later.mat", {"img": CUBE[:, :, 1:]})
    with pytest.raises(ValueError, match=r"\(12, 15, 9\) and \(12, 15, 8\); bring them"):
        scene(other={"file": "later.mat"})
    scipy.io.savemat(tmp_path / "ends.mat", {"M": np.ones((8, 4)), "A": np.ones((4, 180))})
    ends = {"file": "ends.mat", "key": "M"}
    with pytest.raises(ValueError, match="endmembers of the cube's 9 bands, got 8"):
        scene(endmembers=ends)
    shares = {"file": "ends.mat", "key": "A", "axes": "E(HW)", "sides": [15, 12]}
    with pytest.raises(ValueError, match=r"abundances of the cube's \(12, 15\).*\(15, 12\)"):
        scene(abundances=shares, classes=list("abcd"))
    with pytest.raises(ValueError, match=r"as many endmembers.*'abundances': 4, 'classes': 2"):
        scene(task="unmixing", abundances=shares | {"sides": [12, 15]})
    with pytest.raises(ValueError, match="target spectrum of the cube's 9 bands, got 5"):
        check(dataclasses.replace(scene(), target_C=np.ones(5)))


def test_bands_of_gaps_are_named(scene, tmp_path):
    gaps = CUBE.astype("f4")
    gaps[:, :, 3] = np.nan
    scipy.io.savemat(tmp_path / "gaps.mat", {"img": gaps})
    with pytest.raises(ValueError, match=r"got none in 1 of them; say leave_out: \[\[4, 4\]\]"):
        scene(cube={"file": "gaps.mat"})
    assert scene(cube={"file": "gaps.mat"}, leave_out=[[4, 4]]).cube.bands == 8
