"""A small landscape of three classes, seen by two sensors, as a store, shards and labels."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import configs
from hypersigma.finetune import FinetuneConfig
from hypersigma.pretrain import PretrainConfig
from storage import store
from storage.schema import FOOTPRINT_COORDS, SCENE_ATTRS
from storage.shards import write_shards

CLASSES = ["water", "grass", "soil"]
BANDS = {"hyperion": 24, "ahsi": 20}
SPLIT_OF_COLUMN = ["train", "train", "val", "test"]
HEIGHT, WIDTH = 64, 256
RPC = {
    "height_off": 100.0, "height_scale": 500.0, "lat_off": 30.0, "lat_scale": 0.3,
    "long_off": 114.0, "long_scale": 0.4, "line_off": 32.0, "line_scale": 32.0,
    "samp_off": 128.0, "samp_scale": 128.0, "err_bias": 1.0, "err_rand": 0.5,
    "line_num_coeff": [0.0, 0.0, -1.0, *[0.0] * 17], "line_den_coeff": [1.0, *[0.0] * 19],
    "samp_num_coeff": [0.0, 1.0, *[0.0] * 18], "samp_den_coeff": [1.0, *[0.0] * 19],
}  # fmt: skip
PLACE: dict[str, dict[str, Any]] = {
    "h1": {"crs": "EPSG:32633", "transform": [30.0, 0.0, 500000.0, 0.0, -30.0, 5600000.0]},
    "h2": {},
    "a1": {"rpc": RPC},
}


@dataclass(frozen=True)
class World:
    """Where the landscape is, and what is true of it."""

    store: Path
    shards: Path
    labels: Path
    truth: dict[str, np.ndarray]
    """By scene, the class (y, x) of every pixel, 1..3."""
    cubes: dict[str, np.ndarray]
    """By scene, what is stored (band, y, x), NaN where not valid."""


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Let busy machines be slow only in proportion; tiny tensors gain nothing from a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    root = tmp_path_factory.mktemp("world")
    truth, cubes = {}, {}
    labels = root / "labels"
    labels.mkdir()
    (labels / "classes.json").write_text(json.dumps(CLASSES))
    repo = store.create(root / "store", dataset="tiny", recipe="steps: []", recipe_hash="abc")
    session = store.begin(repo)
    forks = {}
    for number, (scene_id, sensor) in enumerate(
        {"h1": "hyperion", "h2": "hyperion", "a1": "ahsi"}.items()
    ):
        truth[scene_id], cubes[scene_id] = make_cube(sensor, seed=number)
        label = truth[scene_id].copy()
        label[::7] = 0
        np.save(labels / f"{scene_id}.npy", label)
        forks[scene_id] = session.fork()
        store.write_scene(forks[scene_id], make_tiles(scene_id, sensor, cubes[scene_id]))
    store.commit_version(repo, forks, code_version="0")
    write_shards(root / "store", root / "shards")
    return World(root / "store", root / "shards", labels, truth, cubes)


def make_cube(sensor, *, seed):
    """Return classes (y, x) in patches of 16 pixels, and their noisy spectra (band, y, x)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 4, (HEIGHT // 16, WIDTH // 16)).repeat(16, 0).repeat(16, 1)
    wave = wavelength(sensor)
    spectra = np.stack([0.1 - wave / 2e4, 0.1 + 0.3 * (wave > 700), 0.1 + wave / 5e3])
    cube = spectra[truth - 1].transpose(2, 0, 1) * rng.normal(1, 0.05, (1, HEIGHT, WIDTH))
    cube = (cube + rng.normal(0, 0.01, cube.shape)).astype(np.float32)
    cube[:, :5, :40] = np.nan
    if sensor == "ahsi":
        cube[3] = np.nan
    return truth.astype(np.uint8), cube


def wavelength(sensor):
    return np.linspace(450, 950, BANDS[sensor])


def make_tiles(scene_id, sensor, cube):
    corners = [(row, col) for row in range(0, HEIGHT, 64) for col in range(0, WIDTH, 64)]
    pixels = np.stack([cube[:, row : row + 64, col : col + 64] for row, col in corners])
    valid = np.isfinite(pixels).any(axis=1)
    row, col = np.array(corners, "i4").T
    attrs = dict.fromkeys(SCENE_ATTRS, "x") | {
        "scene_id": scene_id, "sensor": sensor, "sun_elevation": 50.0, "sun_azimuth": 120.0,
        "view_zenith": 0.0, "nodata": 0, "sources": [], "steps": [], "scale": 1.0,
        "units": "1", "shape": [HEIGHT, WIDTH],
        "counts": {"in": len(corners), "kept": len(corners), "rejected": {}}, **PLACE[scene_id],
    }  # fmt: skip
    known = scene_id != "a1"
    bands = BANDS[sensor]
    return xr.Dataset(
        {"tiles": (("tile", "band", "y", "x"), pixels), "valid": (("tile", "y", "x"), valid)},
        coords={
            "band": np.arange(1, bands + 1, dtype="i4"),
            "wavelength": ("band", wavelength(sensor)),
            "fwhm": ("band", np.full(bands, 10.0)),
            "detector": ("band", np.array(["VNIR"] * bands)),
            "gain": ("band", np.full(bands, 0.1)),
            "offset": ("band", np.zeros(bands)),
            "row": ("tile", row),
            "col": ("tile", col),
            "lon": ("tile", 15 + col * 1e-4 if known else np.full(len(col), np.nan)),
            "lat": ("tile", 50 - row * 1e-4 if known else np.full(len(col), np.nan)),
            "split": ("tile", np.array(SPLIT_OF_COLUMN)[col // 64]),
            **{name: ("tile", np.full(len(col), np.nan, "f4")) for name in FOOTPRINT_COORDS},
            "valid_fraction": ("tile", valid.mean((1, 2)).astype("f4")),
        },
        attrs=attrs,
    )


@pytest.fixture
def pretraining(world, tmp_path):
    """Return a function that makes a small pretraining config."""

    def make(run="run", **changes):
        train = {"steps": 6, "batch_size": 2, "eval_every": 3, "device": "cpu"}
        train |= changes.pop("train", {})
        raw = {
            "run": tmp_path / run, "shards": str(world.shards), "kind": "spatial", "size": "tiny",
            "bands": 16, "train": train, **changes,
        }  # fmt: skip
        return configs.check(PretrainConfig, raw, where="test")

    return make


@pytest.fixture
def finetuning(world, tmp_path):
    """Return a function that makes a small fine-tuning config."""

    def make(run="tuned", **changes):
        train = {
            "steps": 6, "batch_size": 16, "eval_every": 3, "device": "cpu",
            "optim": {"blr": 0.02, "warmup_steps": 2},
        }  # fmt: skip
        train |= changes.pop("train", {})
        raw = {
            "run": tmp_path / run, "shards": world.shards, "labels": world.labels,
            "sensor": "hyperion", "mode": "spatial", "size": "tiny", "n_per_class": 30,
            "window": 3, "patch_size": 3, "val_pixels": 60, "train": train, **changes,
        }  # fmt: skip
        return configs.check(FinetuneConfig, raw, where="test")

    return make
