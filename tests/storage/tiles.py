"""Synthetic tiles of one scene, and versions of a store that has some."""

import numpy as np
import xarray as xr

from storage import store
from storage.schema import FOOTPRINT_COORDS, SCENE_ATTRS

SPLIT = ["train", "val", "test"]


def make_tiles(
    scene_id="s1",
    count=5,
    bands=4,
    *,
    seed=0,
    sensor="hyperion",
    dtype="int16",
    shift=0.0,
    chunks=None,
):
    """Return a tiles Dataset as `tile` makes it: random pixels, a tenth of them not valid."""
    rng = np.random.default_rng([seed, *scene_id.encode()])
    valid = rng.random((count, 64, 64)) < 0.9
    pixels = rng.integers(-100, 9000, (count, bands, 64, 64)).astype(dtype)
    if dtype == "float32":
        pixels = np.where(valid[:, None], pixels / 4000, np.nan).astype(dtype)
    corner = np.arange(count)
    attrs = dict.fromkeys(SCENE_ATTRS, "x") | {
        "scene_id": scene_id,
        "sensor": sensor,
        "sun_elevation": 51.5,
        "sun_azimuth": 120.0,
        "view_zenith": float("nan"),
        "nodata": 0,
        "sources": [{"name": "a.zip", "bytes": 3, "sha256": "00"}],
        "steps": [{"step": "mask", "bad": [1, 2]}],
        "scale": 4000.0 if dtype == "int16" else 1.0,
        "units": "1",
        "counts": {"in": count + 2, "kept": count, "rejected": {"nodata": 2}},
    }
    tiles = xr.Dataset(
        {
            "tiles": (("tile", "band", "y", "x"), pixels),
            "valid": (("tile", "y", "x"), valid),
        },
        coords={
            "band": np.arange(8, 8 + bands, dtype="i4"),
            "wavelength": ("band", 400 + shift + 10.0 * np.arange(bands)),
            "fwhm": ("band", np.full(bands, 10.5)),
            "detector": ("band", np.array(["VNIR"] * (bands - 1) + ["SWIR"])),
            "gain": ("band", np.full(bands, 0.025)),
            "offset": ("band", np.zeros(bands)),
            "row": ("tile", (corner // 3 * 64).astype("i4")),
            "col": ("tile", (corner % 3 * 64).astype("i4")),
            "lon": ("tile", 13 + 0.01 * corner),
            "lat": ("tile", np.where(corner % 2, np.nan, 52 + 0.01 * corner)),
            "split": ("tile", rng.choice(SPLIT, count)),
            **{
                name: ("tile", np.full(count, metres, "f4"))
                for name, metres in zip(FOOTPRINT_COORDS, (960, 3, 3, -960), strict=True)
            },
            "valid_fraction": ("tile", valid.mean((1, 2)).astype("f4")),
        },
        attrs=attrs,
    )
    return tiles if chunks is None else tiles.chunk(tile=chunks)


def make_store(location):
    return store.create(location, dataset="demo", recipe="steps: []", recipe_hash="abc")


def build(repo, *scenes):
    """Publish scenes in one version, each from its own fork."""
    session = store.begin(repo)
    forks = {tiles.attrs["scene_id"]: session.fork() for tiles in scenes}
    for fork, tiles in zip(forks.values(), scenes, strict=True):
        store.write_scene(fork, tiles)
    return store.commit_version(repo, forks, code_version="0.1.0")


def write_in_process(fork, scene_id):
    """Run in a spawned process, where this module is imported faster than one of tests."""
    store.write_scene(fork, make_tiles(scene_id))
    return fork
