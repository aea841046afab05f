"""A set in a bucket, by a server: the folder's batches, in workers, and kept on disk."""

import numpy as np
import pytest

import configs
from hypersigma.loader import TileLoader
from hypersigma.pretrain import PretrainConfig, pretrain
from storage.shards import ShardOptions, write_shards
from storage.stream import Payloads, Stream, open_shards, select
from tests.storage.tiles import build, make_store, make_tiles


def stream(shards, payloads=None):
    return Stream(shards, select(shards), batch_size=4, bands=2, seed=1, payloads=payloads)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_workers_read_a_bucket_as_they_read_a_folder(location, tmp_path, monkeypatch, kept):
    monkeypatch.setenv("HYPERSIGMA_CACHE", str(tmp_path / "cache"))
    build(make_store(tmp_path / "store"), make_tiles("a", 16))
    options = ShardOptions(tiles_per_shard=5)
    for out in (tmp_path / "out", location):
        write_shards(tmp_path / "store", out, options=options)
    local = stream(open_shards(tmp_path / "out"))
    expected = [next(local) for _ in range(8)]
    payloads = Payloads(tmp_path / "kept") if kept else None
    remote = stream(open_shards(location), payloads)
    with TileLoader(remote, workers=1, method="spawn") as loader:
        for plain in expected:
            batch = next(loader)
            np.testing.assert_array_equal(batch.stored.numpy(), plain.tiles)
            assert batch.tile_ids == plain.tile_ids
    assert (len(list((tmp_path / "kept").glob("*/*"))) == 16) == kept


@pytest.mark.slow
def test_pretraining_from_a_bucket_is_that_from_a_folder(location, tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERSIGMA_CACHE", str(tmp_path / "cache"))
    tiles = make_tiles("a", 16, bands=20)
    tiles["split"][:8] = "train"
    build(make_store(tmp_path / "store"), tiles)
    found = []
    for out, cache_gb in ((tmp_path / "out", 0), (location, 0), (location, 1)):
        write_shards(tmp_path / "store", out)
        raw = {
            "run": tmp_path / f"run{len(found)}", "shards": str(out), "kind": "spatial",
            "size": "tiny", "bands": 16, "cache_gb": cache_gb,
            "train": {"steps": 3, "batch_size": 4, "device": "cpu"},
        }  # fmt: skip
        found.append(pretrain(configs.check(PretrainConfig, raw, where="test"))["last_loss"])
        kept = list((tmp_path / "cache/payloads").glob("*/*"))
        assert (len(kept) >= 8) == (cache_gb > 0)
    assert found[0] == found[1] == found[2]
