import hashlib
import io
import json
import shutil
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage import shardtables, shardwork, shardwriter, store
from storage.index import read_index
from storage.moments import merge, no_moments, tile_moments, whole_moments
from storage.schema import SchemaError
from storage.shards import ShardOptions, write_shards
from storage.shardset import open_shards, select
from storage.stream import read_tile
from tests.storage.tiles import build, make_store, make_tiles

AHSI = "GF5B_AHSI_E13p0_N52p4_20231031_011422_L10000412729"


@pytest.fixture(scope="module")
def scenes():
    return [
        make_tiles("h1", 20),
        make_tiles(AHSI, 13, bands=6, sensor="ahsi"),
        make_tiles("h2", 7, shift=1.5),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory, scenes):
    """A store with a version and its shards, for tests that only look."""
    folder = tmp_path_factory.mktemp("made")
    build(make_store(folder / "store"), *scenes)
    write_shards(folder / "store", folder / "out", options=ShardOptions(tiles_per_shard=4))
    return folder


@pytest.fixture(scope="module")
def out(made):
    return made / "out"


@pytest.fixture
def own(made, tmp_path):
    """A copy of it, to change."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_every_tile_lies_where_the_index_says(out, scenes):
    by_id = {tiles.attrs["scene_id"]: tiles for tiles in scenes}
    seen = []
    index = pq.read_table(out / "index.parquet").to_pylist()
    for row in index:
        tiles = by_id[row["scene_id"]]
        corner = (tiles.row.values == row["row"]) & (tiles.col.values == row["col"])
        expected = tiles.isel(tile=int(np.flatnonzero(corner)[0]))
        assert str(expected.split.values) == row["split"] == row["shard"].split("/")[0]
        with tarfile.open(out / row["shard"]) as tar:
            member = tar.getmember(f"{row['tile_id']}.tile.npy")
            stored = np.load(io.BytesIO(tar.extractfile(member).read()))
            meta = json.load(tar.extractfile(f"{row['tile_id']}.meta.json"))
        np.testing.assert_array_equal(stored, expected.tiles.values)
        assert stored.dtype == expected.tiles.dtype
        payload = (out / row["shard"]).read_bytes()[row["offset"] :][: row["length"]]
        assert payload == expected.tiles.values.astype("<i2").tobytes()
        assert (meta["row"], meta["col"], meta["sensor"]) == (row["row"], row["col"], row["sensor"])
        assert int(meta["pattern"], 16) == row["pattern"] > 0
        assert meta["lat"] == (None if np.isnan(row["lat"]) else row["lat"])
        seen.append(row["tile_id"])
    assert len(set(seen)) == 40


def test_members_come_in_pairs_in_the_order_of_the_index(out):
    index = pq.read_table(out / "index.parquet").to_pylist()
    manifest = json.loads((out / "manifest.json").read_text())
    names = []
    for entry in manifest["shards"]:
        with tarfile.open(out / entry["name"]) as tar:
            members = tar.getmembers()
        assert len(members) == 2 * entry["samples"] <= 8
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
        names += [member.name for member in members]
    ids = [row["tile_id"] for row in index]
    assert names == [f"{name}.{kind}" for name in ids for kind in ("tile.npy", "meta.json")]


def test_manifest_agrees_with_the_files_and_the_version(made, out, scenes):
    location = made / "store"
    manifest = json.loads((out / "manifest.json").read_text())
    version = store.versions(store.open_repository(location))[0]
    assert (manifest["version"], manifest["snapshot"]) == ("v1", version.snapshot)
    assert (manifest["dataset"], manifest["recipe_hash"]) == ("demo", "abc")
    got = digests(out)
    tables = [manifest[name] for name in ("index", "checksums", "masks", "sums")]
    for entry in [*manifest["shards"], *tables]:
        assert got.pop(entry["name"]) == entry["sha256"]
        assert (out / entry["name"]).stat().st_size == entry["bytes"]
    assert set(got) == {"manifest.json"}
    splits = read_index(store.open_version(location))["split"].to_pylist()
    assert manifest["splits"] == {s: splits.count(s) for s in ("train", "val", "test")}
    hyperion = manifest["sensors"]["hyperion"]
    assert (hyperion["dtype"], hyperion["scale"], hyperion["tiles"]) == ("int16", 4000.0, 27)
    assert hyperion["wavelength"] == scenes[0].wavelength.values.tolist()


def test_spectral_sets_follow_the_scene(out, scenes):
    opened = open_shards(out)
    assert len(opened.manifest["spectral"]) == 3
    for scene_id, number in zip(
        opened.index["scene_id"].to_pylist(), opened.index["spectral"].to_pylist(), strict=True
    ):
        tiles = next(t for t in scenes if t.attrs["scene_id"] == scene_id)
        entry = opened.manifest["spectral"][number]
        assert entry["sensor"] == tiles.attrs["sensor"]
        assert entry["wavelength"] == tiles.wavelength.values.tolist()


def test_statistics_are_those_of_the_valid_train_pixels(out, scenes):
    manifest = json.loads((out / "manifest.json").read_text())
    pixels = [
        t.tiles.values[i][:, t.valid.values[i]] / 4000
        for t in (scenes[0], scenes[2])
        for i in np.flatnonzero(t.split.values == "train")
    ]
    stored = np.concatenate(pixels, axis=1)
    # Zero is no measurement, nor is the overflow of the calibration.
    expected = np.where((stored == 0) | (stored == -32767 / 4000), np.nan, stored)
    assert np.isnan(expected).any()
    got = manifest["sensors"]["hyperion"]["statistics"]
    assert got["split"] == "train"
    assert got["count"] == np.isfinite(expected).sum(1).tolist()
    np.testing.assert_allclose(got["mean"], np.nanmean(expected, 1), rtol=1e-12)
    np.testing.assert_allclose(got["std"], np.nanstd(expected, 1), rtol=1e-12)


def test_statistics_fall_back_to_all_splits(repo, location, tmp_path):
    tiles = make_tiles("s", 4, dtype="float32").assign_coords(split=("tile", ["val"] * 4))
    build(repo, tiles)
    got = write_shards(location, tmp_path / "out")["sensors"]["hyperion"]["statistics"]
    assert got["split"] == "all"
    # NaN stands for a pixel that is not valid, so NumPy's own NaN functions are the oracle.
    pixels = tiles.tiles.values.astype("f8")
    np.testing.assert_allclose(got["mean"], np.nanmean(pixels, (0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(got["std"], np.nanstd(pixels, (0, 2, 3)), rtol=1e-12)


def test_moments_of_parts_are_moments_of_the_whole():
    rng = np.random.default_rng(0)
    tiles = rng.normal(1e6, 1, (5, 2, 8, 8))
    tiles[0, 1, 3] = np.nan
    valid = rng.random((5, 8, 8)) < 0.5
    valid[2] = False
    total = no_moments(2)
    for tile, mask in zip(tiles, valid, strict=True):
        total = merge(total, tile_moments(tile, mask))
    masked = np.where(valid[:, None], tiles, np.nan)
    np.testing.assert_array_equal(total.count, np.isfinite(masked).sum((0, 2, 3)))
    np.testing.assert_allclose(total.mean, np.nanmean(masked, (0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(total.std, np.nanstd(masked, (0, 2, 3)), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_sums_of_integers_are_the_moments_of_the_same_pixels(seed):
    rng = np.random.default_rng(seed)
    tile = rng.choice([-32768, -32767, -5, 0, 7, 32767], (3, 64, 64)).astype("i2")
    valid = rng.random((64, 64)) < 0.5
    count, total, squares = whole_moments(tile, valid)
    expected = tile_moments(tile, valid)
    np.testing.assert_array_equal(count, expected.count)
    np.testing.assert_allclose(total / count, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(squares - total / count * total, expected.squares, rtol=1e-12)


def test_same_version_same_bytes(own, out):
    build(store.open_repository(own / "store"), make_tiles("later"))
    write_shards(
        own / "store", own / "again", version="v1", options=ShardOptions(tiles_per_shard=4)
    )
    assert digests(own / "again") == digests(out)


def test_a_finished_set_is_left_as_it_is(own):
    location, out = own / "store", own / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert (
        write_shards(location, out, options=ShardOptions(tiles_per_shard=4))
        == open_shards(out).manifest
    )
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    build(store.open_repository(location), make_tiles("later"))
    with pytest.raises(SchemaError, match="holds demo v1, not v2; name another"):
        write_shards(location, out, options=ShardOptions(tiles_per_shard=4))
    with pytest.raises(SchemaError, match="tiles_per_shard 4, not v1, tiles_per_shard 8;"):
        write_shards(location, out, version="v1", options=ShardOptions(tiles_per_shard=8))


def test_a_folder_with_other_files_is_refused(repo, location, tmp_path):
    build(repo, make_tiles())
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "hyperion-000000.tar").write_text("precious")
    with pytest.raises(SchemaError, match="new or an empty folder"):
        write_shards(location, tmp_path / "mine")
    assert (tmp_path / "mine" / "train" / "hyperion-000000.tar").read_text() == "precious"


@pytest.mark.parametrize(
    ("module", "moment", "call"),
    [
        (shardwriter, "tidy", 0),
        (shardwriter, "write_manifest", 0),
        (shardtables, "_write_index", 0),
        (shardwork, "save_record", 0),
        (shardwork, "save_record", 3),
        (shardwork, "_add_tile", 0),
        (shardwork, "_add_tile", 3),
    ],
)
def test_a_run_that_was_cut_off_is_no_set_and_starts_anew(
    repo, location, tmp_path, monkeypatch, module, moment, call
):
    build(repo, make_tiles(count=9))
    write_shards(location, tmp_path / "whole", options=ShardOptions(tiles_per_shard=2))
    original = getattr(module, moment)
    with monkeypatch.context() as patch:
        calls = iter(range(10))

        def crash(*args):
            if next(calls) == call:
                raise KeyboardInterrupt
            return original(*args)

        patch.setattr(module, moment, crash)
        with pytest.raises(KeyboardInterrupt):
            write_shards(location, tmp_path / "out", options=ShardOptions(tiles_per_shard=2))
    if moment != "tidy":
        with pytest.raises(SchemaError, match=r"no manifest\.json"):
            open_shards(tmp_path / "out")
    write_shards(location, tmp_path / "out", options=ShardOptions(tiles_per_shard=2))
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_damage_is_said_in_words(own):
    out = own / "out"
    shard = out / open_shards(out).manifest["shards"][0]["name"]
    good = shard.read_bytes()
    shard.write_bytes(good[:-512])
    with pytest.raises(SchemaError, match=rf"must have {len(good)} bytes, got {len(good) - 512}"):
        open_shards(out)
    shard.write_bytes(good[:1000] + b"X" + good[1001:])
    open_shards(out)
    with pytest.raises(SchemaError, match="sha256"):
        open_shards(out, verify=True)
    shard.unlink()
    with pytest.raises(SchemaError, match="got no file"):
        open_shards(out)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "must be JSON"), ('{"schema": "x/9"}', "x/9"), ("[]", "got None")],
)
def test_a_damaged_manifest_is_refused(own, text, message):
    out = own / "out"
    (out / "manifest.json").write_text(text)
    with pytest.raises(SchemaError, match=message):
        open_shards(out)


def test_one_sensor_has_one_band_count(repo, location, tmp_path):
    build(repo, make_tiles("a"), make_tiles("b", bands=5))
    with pytest.raises(SchemaError, match=r"b must be like the other hyperion scenes"):
        write_shards(location, tmp_path / "out")


def test_a_version_without_tiles_has_no_shards(repo, location, tmp_path):
    build(repo, make_tiles("a", 0))
    with pytest.raises(SchemaError, match="no tiles"):
        write_shards(location, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_progress_reaches_the_total(repo, location, tmp_path):
    build(repo, make_tiles(count=9))
    seen = []
    write_shards(location, tmp_path / "out", progress=lambda *done: seen.append(done))
    assert seen[-1] == (9, 9)
    assert seen == sorted(seen)


def test_select_by_split_and_sensor(out):
    opened = open_shards(out)
    rows = select(opened, split="val", sensor="ahsi")
    assert {opened.index["split"][int(i)].as_py() for i in rows} == {"val"}
    table = opened.index.to_pydict()
    expected = [
        i for i, pair in enumerate(zip(table["split"], table["sensor"], strict=True))
        if pair == ("val", "ahsi")
    ]  # fmt: skip
    assert rows.tolist() == expected
    assert len(select(opened)) == 40
    with pytest.raises(SchemaError, match="'hyperion'"):
        select(opened, sensor="emit")


def test_read_tile_gives_any_window(out, scenes):
    opened = open_shards(out)
    for row in range(0, 40, 7):
        record = opened.index.slice(row, 1).to_pylist()[0]
        tiles = next(t for t in scenes if t.attrs["scene_id"] == record["scene_id"])
        expected = tiles.tiles.values[record["position"]]
        np.testing.assert_array_equal(read_tile(opened, row), expected)
        np.testing.assert_array_equal(read_tile(opened, row, band_start=1, bands=2), expected[1:3])
    with pytest.raises(SchemaError, match="got 4 from 3"):
        read_tile(opened, 0, band_start=3, bands=4)
