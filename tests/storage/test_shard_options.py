"""What the options of a set do to its files, told by stock tools and NumPy."""

import io
import json
import shutil
import tarfile

import lz4.frame
import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from storage.index import read_index
from storage.schema import SchemaError
from storage.shards import Condition, ShardOptions, write_shards
from storage.shardset import open_shards
from storage.store import open_version
from tests.storage.tiles import build, make_store, make_tiles


@pytest.fixture(scope="module")
def scenes():
    return {
        "a": make_tiles("a", 9),
        "b": make_tiles("b", 8, bands=6, sensor="ahsi"),
        "c": make_tiles("c", 4, bands=3, sensor="enmap", dtype="float32"),
    }


@pytest.fixture(scope="module")
def location(tmp_path_factory, scenes):
    folder = tmp_path_factory.mktemp("options") / "store"
    build(make_store(folder), *scenes.values())
    return folder


@pytest.fixture
def make(location, tmp_path):
    """Write a set with some options; return it opened, and its rows."""

    def make(name="out", **options):
        write_shards(location, tmp_path / name, options=ShardOptions(**options))
        opened = open_shards(tmp_path / name, verify=True)
        return opened, pq.read_table(tmp_path / name / "index.parquet").to_pylist()

    return make


def ints(condition="sensor != 'enmap'"):
    """Return the condition that leaves integers, understood by hand."""
    assert condition == "sensor != 'enmap'"
    return Condition(
        condition,
        lambda _, index: np.flatnonzero(np.array(index["sensor"].to_pylist()) != "enmap"),
    )


def unpacked(data, codec):
    if codec == "lz4":
        return lz4.frame.decompress(data)
    if codec == "zstd":
        assert zstandard.get_frame_parameters(data).content_size > 0
        return zstandard.ZstdDecompressor().decompress(data)
    return data


SUFFIX = {"none": ".tile.npy", "lz4": ".tile.npy.lz4", "zstd": ".tile.npy.zst"}


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_every_tile_is_there_with_its_checksum_and_mask(make, scenes, codec, dtype):
    opened, rows = make(codec=codec, dtype=dtype, tiles_per_shard=4)
    checksums = np.load(opened.root / "checksums.npy", mmap_mode="r")
    masks = np.load(opened.root / "masks.npy")
    assert checksums.dtype == np.uint32
    assert checksums.shape == (21, 6 if codec == "none" else 1)
    assert masks.dtype == np.uint8
    assert masks.shape == (21, 512)
    assert checksums.flags.c_contiguous
    for number, row in enumerate(rows):
        tiles = scenes[row["scene_id"]]
        stored = tiles.tiles.values[row["position"]]
        expected = stored.astype(dtype or stored.dtype)
        shard = (opened.root / row["shard"]).read_bytes()
        payload = shard[row["offset"] :][: row["length"]]
        with tarfile.open(opened.root / row["shard"]) as tar:
            member = tar.extractfile(f"{row['tile_id']}{SUFFIX[codec]}").read()
        found = np.load(io.BytesIO(unpacked(member, codec)))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        if codec == "none":
            assert payload == expected.tobytes()
            bands = [xxhash.xxh3_64_intdigest(band.tobytes()) & 0xFFFFFFFF for band in expected]
            np.testing.assert_array_equal(checksums[number], bands + [0] * (6 - len(bands)))
        else:
            assert payload == member
            assert checksums[number, 0] == xxhash.xxh3_64_intdigest(payload) & 0xFFFFFFFF
        mask = np.unpackbits(masks[number]).reshape(64, 64).astype(bool)
        np.testing.assert_array_equal(mask, tiles.valid.values[row["position"]])
        assert row["label_offset"] == -1
    expected = {"tiles_per_shard": 4, "shard_bytes": None, "dtype": dtype, "codec": codec,
                "splits": ["train", "val", "test"], "where": None, "labels": None}  # fmt: skip
    assert opened.manifest["options"] == expected
    sensors = opened.manifest["sensors"]
    assert sensors["hyperion"]["dtype"] == (dtype or "int16")
    assert sensors["hyperion"]["scale"] == 4000.0


def test_a_codec_and_a_dtype_change_no_statistics(make):
    plain, _ = make("plain")
    other, _ = make("other", codec="zstd", dtype="float32")
    for name, entry in plain.manifest["sensors"].items():
        assert other.manifest["sensors"][name]["statistics"] == entry["statistics"]


def test_integers_are_not_made_of_floats(make, location, tmp_path):
    with pytest.raises(SchemaError, match="enmap: int16 shards can be made of int16 tiles alone"):
        make(dtype="int16")
    assert not (tmp_path / "out").exists()
    opened, rows = make(dtype="int16", where=ints())
    assert len(rows) == 17
    assert opened.manifest["options"]["where"] == "sensor != 'enmap'"
    assert set(opened.manifest["sensors"]) == {"hyperion", "ahsi"}


def test_splits_and_a_condition_choose_tiles(make, location):
    index = read_index(open_version(location)).to_pylist()
    opened, rows = make(splits=("test", "train"), where=ints())
    wanted = {row["tile_id"] for row in index if row["split"] != "val" and row["sensor"] != "enmap"}
    assert {row["tile_id"] for row in rows} == wanted
    assert opened.manifest["options"]["splits"] == ["train", "test"]
    assert opened.manifest["splits"]["val"] == 0
    assert {entry["split"] for entry in opened.manifest["shards"]} == {"train", "test"}


def test_a_choice_of_nothing_is_said(make):
    nothing = Condition("cloud > 2", lambda *_: np.empty(0, np.int64))
    with pytest.raises(SchemaError, match=r"none of the 21 tiles of version v1 .* and cloud > 2"):
        make(where=nothing)


def test_bytes_bound_a_shard(make):
    opened, _ = make(shard_bytes=150_000)
    for entry in opened.manifest["shards"]:
        assert entry["bytes"] <= 150_000 + 2 * 10_240
    sizes = {e["sensor"]: 0 for e in opened.manifest["shards"]}
    for entry in opened.manifest["shards"]:
        sizes[entry["sensor"]] = max(sizes[entry["sensor"]], entry["samples"])
    # 32, 48 and 48 kB of pixels a tile, and some kB around them.
    assert sizes["hyperion"] == 3
    assert sizes["ahsi"] == 2
    assert opened.manifest["tiles_per_shard"] is None
    assert opened.manifest["options"]["tiles_per_shard"] is None
    assert opened.manifest["options"]["shard_bytes"] == 150_000
    tiny, _ = make("tiny", shard_bytes=1)
    assert {entry["samples"] for entry in tiny.manifest["shards"]} == {1}


@given(bands=st.integers(1, 300), size=st.integers(1, 10**10),
       kind=st.sampled_from(["int16", "float32"]))  # fmt: skip
def test_tiles_in_a_shard_follow_from_bytes(bands, size, kind):
    count = ShardOptions(shard_bytes=size).tiles_in_shard(bands, kind)
    pixels = bands * 4096 * np.dtype(kind).itemsize
    assert count >= 1
    assert count == 1 or count * pixels <= size
    assert (count + 1) * (pixels + 20_000) > size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": "gzip"}, "codec must be in"),
        ({"dtype": "uint8"}, "dtype must be in"),
        ({"splits": ("train", "dev")}, "splits must be some of"),
        ({"splits": ()}, "splits must be some of"),
        ({"tiles_per_shard": 0}, "at least 1, got 0"),
        ({"shard_bytes": 0}, "at least 1, got 256 and 0"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ShardOptions(**options)


@pytest.fixture
def labels(tmp_path):
    """Rasters of two of three scenes; tiles lie at rows of 3."""
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "classes.json").write_text('["water", "forest", "field"]')
    for seed, name in enumerate(("a", "b")):
        raster = np.random.default_rng(seed).integers(0, 4, (192, 192)).astype("u1")
        np.save(folder / f"{name}.npy", raster)
    return folder


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_labels_lie_beside_tiles(make, labels, codec):
    opened, rows = make(labels=labels, codec=codec, tiles_per_shard=4)
    for row in rows:
        with tarfile.open(opened.root / row["shard"]) as tar:
            names = [n for n in tar.getnames() if n.startswith(f"{row['tile_id']}.")]
            ends = [name.removeprefix(row["tile_id"]) for name in names]
            if row["scene_id"] == "c":
                assert ends == [SUFFIX[codec], ".meta.json"]
                assert row["label_offset"] == -1
                continue
            assert ends == [SUFFIX[codec], ".label.npy", ".meta.json"]
            found = np.load(io.BytesIO(tar.extractfile(names[1]).read()))
        raster = np.load(labels / f"{row['scene_id']}.npy")
        expected = raster[row["row"] : row["row"] + 64, row["col"] : row["col"] + 64]
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint8
        shard = (opened.root / row["shard"]).read_bytes()
        assert shard[row["label_offset"] :][:4096] == expected.tobytes()
    said = opened.manifest["options"]["labels"]
    assert said["classes"] == ["water", "forest", "field"]
    assert said["dtype"] == "uint8"
    assert len(said["sha256"]) == 64


def test_labels_are_part_of_what_a_set_is_made_of(make, labels, location, tmp_path):
    first, _ = make(labels=labels, tiles_per_shard=4)
    options = ShardOptions(labels=labels, tiles_per_shard=4)
    assert write_shards(location, first.root, options=options) == first.manifest
    raster = np.load(labels / "a.npy")
    raster[:64, :64] = 3 - raster[:64, :64]
    np.save(labels / "a.npy", raster)
    with pytest.raises(SchemaError, match="labels"):
        write_shards(location, first.root, options=options)
    write_shards(location, tmp_path / "next", options=options, previous=first.root)
    write_shards(location, tmp_path / "fresh", options=options)
    fresh = {p.relative_to(tmp_path / "fresh"): p for p in (tmp_path / "fresh").rglob("*.*")}
    same = 0
    for name, path in fresh.items():
        taken = tmp_path / "next" / name
        assert taken.read_bytes() == path.read_bytes()
        same += taken.stat().st_nlink > 1
    assert same == len(first.manifest["shards"]) - 1  # all but the one with the changed tile
    ids = {p["labels"]["sha256"] for p in (
        json.loads((tmp_path / "fresh/manifest.json").read_text())["options"],
        first.manifest["options"],
    )}  # fmt: skip
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "classes.json").unlink(), "list of class names, found no file"),
        (
            lambda folder: (folder / "classes.json").write_text('["one"]'),
            r"expected classes 0\.\.1",
        ),
        (lambda folder: np.save(folder / "a.npy", np.zeros((64, 64), "u1")), "does not cover"),
        (lambda folder: np.save(folder / "a.npy", np.zeros((192, 192), "i2")), "of one dtype"),
        (lambda folder: np.save(folder / "a.npy", np.zeros((192, 192))), "expected integers"),
        (lambda folder: np.save(folder / "a.npy", np.full((192, 192), 9, "u1")), "got 9 to 9"),
        (lambda folder: [path.unlink() for path in folder.glob("*.npy")], "got none"),
    ],
)
def test_labels_that_do_not_fit_are_refused(make, labels, change, message):
    change(labels)
    with pytest.raises(SchemaError, match=message):
        make(labels=labels)


def test_a_set_of_before_is_refused_in_words(make, tmp_path):
    opened, _ = make()
    for name in ("checksums", "masks", "options"):
        shutil.copytree(opened.root, tmp_path / name)
        path = tmp_path / name / "manifest.json"
        manifest = json.loads(path.read_text())
        del manifest[name]
        path.write_text(json.dumps(manifest))
        with pytest.raises(SchemaError, match=rf"'{name}'.*older release wrote; write the set"):
            open_shards(tmp_path / name)


@pytest.mark.parametrize("name", ["index.parquet", "checksums.npy", "masks.npy", "sums.npy"])
def test_damaged_tables_are_refused(make, name):
    opened, _ = make()
    path = opened.root / name
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(SchemaError, match=rf"{name} does not have the manifest's sha256"):
        open_shards(opened.root)
    path.unlink()
    with pytest.raises(SchemaError, match="got no file"):
        open_shards(opened.root)
