import csv
import gc
import hashlib
import json

import numpy as np
import pytest
import torch
import webdataset

import configs
from hypersigma.pretrain import PretrainConfig, pretrain
from pipeline.foreign import ImportOptions, Naming, import_tiles
from pipeline.sensors import SENSORS
from storage import shardwork, shardwriter
from storage.schema import SchemaError
from storage.shardoptions import ShardOptions
from storage.shardset import open_shards, select
from storage.stream import Stream, read_tile
from tests.pipeline.foreign.inputs import (
    AHSI,
    HYPERION,
    mat_bytes,
    npy_bytes,
    npy_tile,
    values,
    write_mat,
    write_tar,
)

FEW = ShardOptions(tiles_per_shard=2)


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    import_tiles([str(folder)], out, shards=FEW)
    return out


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_folder_of_mat_files_becomes_a_set(made):
    shards = open_shards(made, verify=True)
    rows = shards.index.to_pylist()
    names = {row["source"].rpartition("/")[2].removesuffix(".mat"): row for row in rows}
    assert len(names) == len(rows) == 7
    for name, row in names.items():
        tile, meta = npy_tile(made, row)
        assert tile.dtype == np.int16
        np.testing.assert_array_equal(tile, values(name))
        assert row["tile_id"] == meta["tile_id"] == name.replace("5.6", "5p6").replace("1.2", "1p2")
        assert (row["row"], row["col"], row["split"]) == (-1, -1, "train")
        assert np.isnan(row["lon"])
        assert meta["lat"] is None
    assert {row["scene_id"] for row in rows} == {
        HYPERION, "EO1H0380342005105110KF", AHSI.replace("5.6", "5p6").replace("1.2", "1p2"),
    }  # fmt: skip
    assert [row["position"] for row in rows if row["scene_id"] == HYPERION] == [0, 1, 2]


def test_bands_and_wavelengths_are_the_reference_s(made):
    manifest = open_shards(made).manifest
    for sensor, count in (("hyperion", 175), ("ahsi", 150)):
        entry, table = manifest["sensors"][sensor], SENSORS[sensor]
        assert len(entry["band"]) == count
        assert (entry["dtype"], entry["scale"]) == ("int16", 4000.0)
        at = np.searchsorted(table.band, entry["band"])
        np.testing.assert_array_equal(entry["wavelength"], table.wavelength[at])
        np.testing.assert_array_equal(entry["fwhm"], table.fwhm[at])
        number = open_shards(made).index["spectral"][select(open_shards(made), sensor=sensor)[0]]
        assert manifest["spectral"][number.as_py()]["wavelength"] == entry["wavelength"]
    pixels = np.stack([values(f"{AHSI}_{number}") for number in range(3)]) / 4000
    got = manifest["sensors"]["ahsi"]["statistics"]
    np.testing.assert_allclose(got["mean"], pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(got["std"], pixels.std((0, 2, 3)), rtol=1e-12)


def test_what_is_left_out_is_named_and_counted(made):
    found = list(csv.DictReader((made / "rejected.csv").read_text().splitlines()))
    reasons = {row["source"].rpartition("/")[2].removesuffix(".mat"): row for row in found}
    assert {name: row["reason"] for name, row in reasons.items()} == {
        "EO1_damaged": "unreadable", "EO1_key": "key", "EO1_shape": "shape", "EO1_bands": "bands",
        "EO1_range": "range", "EO1_nothing": "no data", "EO1_nan": "NaN", "EO1_half": "dtype",
        "unknown": "sensor",
    }  # fmt: skip
    assert reasons["EO1_key"]["detail"] == "expected a variable img, got data"
    assert reasons["EO1_shape"]["detail"] == "expected (band, 64, 64), got (64, 64, 175)"
    manifest = json.loads((made / "manifest.json").read_text())
    told = manifest["import"]
    assert (told["in"], told["kept"], sum(told["rejected"].values())) == (16, 7, 9)
    assert told["ignored"] == {".zip": 1}
    assert manifest["rejected"]["sha256"] == digests(made)["rejected.csv"]


def test_same_inputs_same_bytes(folder, made, tmp_path):
    (tmp_path / "moved").symlink_to(folder)
    again = ImportOptions(dataset=open_shards(made).manifest["dataset"])
    import_tiles([str(tmp_path / "moved")], tmp_path / "out", options=again, shards=FEW, jobs=2)
    assert digests(tmp_path / "out") == digests(made)


def test_the_stream_reads_it(made):
    shards = open_shards(made)
    with Stream(shards, select(shards), batch_size=7, bands=100, seed=1, valid=True) as stream:
        batch = next(stream)
    assert sorted(batch.rows) == list(range(7))
    for tile, start, row in zip(batch.tiles, batch.band_start, batch.rows, strict=True):
        np.testing.assert_array_equal(tile, read_tile(shards, row)[start : start + 100])
    assert batch.valid.all()


def test_a_model_is_pretrained_on_it(made, tmp_path):
    train = {"steps": 2, "batch_size": 2, "device": "cpu"}
    raw = {"run": tmp_path / "run", "shards": str(made), "kind": "spatial", "size": "tiny",
           "bands": 16, "train": train}  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        summary = pretrain(configs.check(PretrainConfig, raw, where="test"))
    finally:
        torch.set_num_threads(threads)
    assert np.isfinite(summary["last_loss"])
    assert "val_loss" not in summary  # all tiles are in train


def test_tars_of_webdataset_become_the_same_tiles(tmp_path):
    names = [f"{HYPERION}_{number}" for number in range(5)]
    pattern = str(tmp_path / "part-%03d.tar")
    with webdataset.ShardWriter(pattern, maxcount=3, verbose=0) as sink:
        for name in names:
            sink.write({"__key__": name, "npy": values(name), "json": {"cloud": 0.1}})
    with webdataset.TarWriter(str(tmp_path / "mat.tar")) as sink:
        sink.write(
            {"__key__": "a/EO1H0380342005105110KF_r64_c128", "mat": mat_bytes(values("EO1"))}
        )
    gc.collect()
    manifest = import_tiles(
        [f"{tmp_path}/part-{{000..001}}.tar", f"{tmp_path}/mat.tar"], tmp_path / "out"
    )
    assert manifest["tiles"] == 6
    assert manifest["import"]["ignored"] == {".json": 5}
    index = open_shards(tmp_path / "out", verify=True).index.to_pylist()
    assert [row["tile_id"] for row in index] == ["EO1H0380342005105110KF_r64_c128", *names]
    assert (index[0]["row"], index[0]["col"]) == (64, 128)
    for row in index:
        expected = values(row["tile_id"] if row["tile_id"] in names else "EO1")
        np.testing.assert_array_equal(npy_tile(tmp_path / "out", row)[0], expected)


def test_our_own_shards_can_be_imported(made, tmp_path):
    manifest = import_tiles(
        [str(made / "train")], tmp_path / "again", options=ImportOptions(member="tile.npy")
    )
    assert manifest["tiles"] == 7
    columns = ["tile_id", "scene_id", "sensor", "position", "row", "col"]
    again, before = (open_shards(at).index.select(columns) for at in (tmp_path / "again", made))
    assert again.to_pylist() == before.to_pylist()


def test_names_that_are_there_twice_are_told_apart(tmp_path):
    for part in "ab":
        write_mat(tmp_path / "in" / part, "EO1_1")
    import_tiles([str(tmp_path / "in")], tmp_path / "out")
    names = open_shards(tmp_path / "out").index["tile_id"].to_pylist()
    assert len(set(names)) == 2
    assert all(name.startswith("EO1_1-") and len(name) == 14 for name in names)


def test_members_of_one_name_are_told_apart(tmp_path):
    names = ("EO1_1.npy", "EO1_2.npy", "EO1_1.npy")
    arrays = [values(f"EO1{number}") for number in range(3)]
    members = zip(names, map(npy_bytes, arrays), strict=True)
    write_tar(tmp_path / "in.tar", members)
    import_tiles([str(tmp_path / "in.tar")], tmp_path / "out")
    rows = open_shards(tmp_path / "out", verify=True).index.to_pylist()
    assert len({row["tile_id"] for row in rows}) == 3
    for row, expected in zip(rows, arrays, strict=True):
        np.testing.assert_array_equal(npy_tile(tmp_path / "out", row)[0], expected)


@pytest.mark.parametrize("out", ["in", "in/shards", "in/a/shards", "link/shards"])
def test_shards_are_not_written_into_what_is_imported(tmp_path, out):
    write_mat(tmp_path / "in", "EO1_1")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(SchemaError, match="must not lie in what is imported"):
        import_tiles([str(tmp_path / "in")], tmp_path / out)
    assert [path.name for path in (tmp_path / "in").rglob("*")] == ["EO1_1.mat"]


def test_scenes_are_shared_out_to_splits_whole(tmp_path):
    for scene in range(8):
        for tile in range(2):
            write_mat(tmp_path / "in", f"EO1-{scene:03d}-s_{tile}", values("EO1", bands=175))
    naming = Naming(shares={"train": 0.5, "val": 0.5})
    import_tiles([str(tmp_path / "in")], tmp_path / "out", options=ImportOptions(naming=naming))
    index = open_shards(tmp_path / "out").index.to_pylist()
    splits = {}
    for row in index:
        splits.setdefault(row["scene_id"], set()).add(row["split"])
    assert len(splits) == 8
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val"}


def test_a_shard_of_which_nothing_is_left_is_no_file(tmp_path, monkeypatch):
    for number in range(6):
        name = f"EO1_{number}"
        write_mat(tmp_path / "in", name, values(name) if number // 2 != 1 else None)
        if number // 2 == 1:
            write_mat(tmp_path / "in", name, np.zeros((175, 64, 64), "i2"))
    with monkeypatch.context() as patch:
        patch.setattr(shardwriter, "write_tables", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            import_tiles([str(tmp_path / "in")], tmp_path / "out", shards=FEW)
    monkeypatch.setattr(shardwork, "_write", None)  # all that was done stays
    import_tiles([str(tmp_path / "in")], tmp_path / "out", shards=FEW)
    shards = open_shards(tmp_path / "out", verify=True)
    assert [entry["name"] for entry in shards.manifest["shards"]] == [
        "train/hyperion-000000.tar", "train/hyperion-000002.tar",
    ]  # fmt: skip
    for row, name in enumerate(["EO1_0", "EO1_1", "EO1_4", "EO1_5"]):
        np.testing.assert_array_equal(read_tile(shards, row), values(name))


@pytest.mark.parametrize("call", [0, 1, 4])
def test_a_run_that_was_cut_off_goes_on(folder, made, tmp_path, monkeypatch, call):
    dataset = ImportOptions(dataset=open_shards(made).manifest["dataset"])
    original, calls = shardwork._add_tile, iter(range(100))

    def crash(*args):
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shardwork, "_add_tile", crash)
        with pytest.raises(KeyboardInterrupt):
            import_tiles([str(folder)], tmp_path / "out", options=dataset, shards=FEW)
    with pytest.raises(SchemaError, match=r"no manifest\.json"):
        open_shards(tmp_path / "out")
    import_tiles([str(folder)], tmp_path / "out", options=dataset, shards=FEW)
    assert digests(tmp_path / "out") == digests(made)


def test_a_finished_set_stays_until_its_inputs_change(tmp_path):
    write_mat(tmp_path / "in", "EO1_1")
    import_tiles([str(tmp_path / "in")], tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    import_tiles([str(tmp_path / "in")], tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    with pytest.raises(SchemaError, match=r"other options \(recipe_hash\)"):
        import_tiles([str(tmp_path / "in")], tmp_path / "out", options=ImportOptions(scale=1.0))
    write_mat(tmp_path / "in", "EO1_1", values("EO1_1") + np.int16(1))
    with pytest.raises(SchemaError, match=r"made of other inputs .*\(snapshot\)"):
        import_tiles([str(tmp_path / "in")], tmp_path / "out")
