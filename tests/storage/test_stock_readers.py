"""Shards as people read them who have nothing of ours."""

import gc
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import webdataset

from tests.storage.sets import make_set
from tests.storage.tiles import make_tiles

AHSI = "GF5B_AHSI_E13p0_N52p4_20231031_011422_L10000412729"
HUGGING_FACE = """
import json, sys
import datasets, numpy

for files in sys.argv[1:]:
    files = {"train": json.loads(files)}
    found = {}
    for sample in datasets.load_dataset("webdataset", data_files=files, streaming=True)["train"]:
        (key,) = (key for key in sample if key.startswith("tile.npy"))
        found[sample["__key__"]] = numpy.asarray(sample[key]).tolist(), sample["meta.json"]
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def scenes():
    return {
        "h1": make_tiles("h1", 8),
        AHSI: make_tiles(AHSI, 5, bands=6, sensor="ahsi"),
        "h2": make_tiles("h2", 7, shift=1.5),
    }


def urls(shards, sensor):
    entries = shards.manifest["shards"]
    return [str(shards.root / entry["name"]) for entry in entries if entry["sensor"] in sensor]


def check(found, scenes):
    """Compare tiles and metadata by key with what went to the store."""
    expected = [f"{n}_r{r}_c{c}" for n, t in scenes.items() for r, c in zip(
        t.row.values, t.col.values, strict=True)]  # fmt: skip
    assert sorted(found) == sorted(expected)
    for name, (tile, meta) in found.items():
        tiles = scenes[meta["scene_id"]].isel(tile=meta["position"])
        np.testing.assert_array_equal(tile, tiles.tiles.values)
        assert (meta["tile_id"], meta["split"]) == (name, str(tiles.split.values))
        lat = float(tiles.lat)
        assert meta["lat"] == (None if np.isnan(lat) else lat)


# It leaves its files to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_them(scenes, tmp_path):
    shards = make_set(tmp_path, *scenes.values(), tiles_per_shard=4)
    samples = webdataset.WebDataset(
        urls(shards, ("hyperion", "ahsi")), shardshuffle=False, empty_check=False
    ).decode()
    found = {sample["__key__"]: (sample["tile.npy"], sample["meta.json"]) for sample in samples}
    gc.collect()
    assert {tile.dtype.name for tile, _ in found.values()} == {"int16"}
    check(found, scenes)


@pytest.mark.slow
def test_hugging_face_datasets_reads_them(scenes, tmp_path):
    # In a process of its own: it reads these once, and loads much.
    own = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "USE_TORCH": "0"}
    plain = make_set(tmp_path / "plain", scenes["h1"], scenes["h2"], tiles_per_shard=4)
    packed = make_set(tmp_path / "packed", scenes[AHSI], tiles_per_shard=4, codec="zstd")
    files = [json.dumps(urls(plain, ("hyperion",))), json.dumps(urls(packed, ("ahsi",)))]
    done = subprocess.run(
        [sys.executable, "-c", HUGGING_FACE, *files],
        env={**os.environ, **own}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    check(first, {"h1": scenes["h1"], "h2": scenes["h2"]})
    check(second, {AHSI: scenes[AHSI]})
