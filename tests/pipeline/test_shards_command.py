import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.catalogue.query import condition, query
from pipeline.commands.shards import byte_count
from storage.index import read_index
from storage.schema import SchemaError
from storage.shardset import open_shards
from storage.store import open_version
from tests.storage.test_export import dated
from tests.storage.tiles import build, make_store


@pytest.fixture
def location(tmp_path):
    place = tmp_path / "store"
    old = dated("s1", sensor="ahsi").assign_attrs(acquired="1999-01-01T00:00:00Z")
    build(make_store(place), old, dated("s2", count=8))
    return place


def run(*arguments):
    return CliRunner().invoke(app, ["shards", *map(str, arguments)])


@pytest.mark.parametrize("text", ["valid < 0.9", "acquired < '2000-01-01'", "row > 0 and col = 0"])
def test_a_condition_means_what_it_means_to_query(location, text):
    group = open_version(location)
    index = read_index(group)
    rows = condition(text).choose(group, index)
    assert rows.tolist() == sorted(rows.tolist())
    found = set(index["tile_id"].take(rows).to_pylist())
    assert found == set(query(location, text, columns=["tile_id"])["tile_id"].to_pylist())
    assert 0 < len(found) < len(index)


def test_a_condition_that_is_none_is_refused(location):
    group = open_version(location)
    with pytest.raises(SchemaError, match="cannot be answered"):
        condition("nope > 1").choose(group, read_index(group))


def test_options_reach_the_set(location, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "classes.json").write_text('["one"]')
    np.save(labels / "s2.npy", np.ones((192, 192), "u1"))
    done = run(
        location, tmp_path / "out", "--version", "v1", "--shard-bytes", "100kB", "--dtype",
        "float32", "--codec", "lz4", "--split", "val", "--split", "train", "--where", "valid > 0",
        "--labels", labels,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    manifest = open_shards(tmp_path / "out", verify=True).manifest
    options = manifest["options"]
    assert options.pop("labels")["classes"] == ["one"]
    assert options == {
        "tiles_per_shard": None, "shard_bytes": 100_000, "dtype": "float32", "codec": "lz4",
        "splits": ["train", "val"], "where": "valid > 0",
    }  # fmt: skip
    assert f"{manifest['tiles']} tiles of v1 in {len(manifest['shards'])} shards" in done.output


def test_an_earlier_set_is_appended_to(location, tmp_path):
    assert run(location, tmp_path / "v1", "--tiles-per-shard", 2).exit_code == 0
    done = run(location, tmp_path / "out", "--tiles-per-shard", 2, "--append", tmp_path / "v1")
    assert done.exit_code == 0, done.output
    tars = list((tmp_path / "out").rglob("*.tar"))
    assert tars
    assert all(path.stat().st_nlink == 2 for path in tars)
    assert len(pq.read_table(tmp_path / "out/index.parquet")) == 13


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--tiles-per-shard", 2, "--shard-bytes", "1GB"], 2, "got both"),
        (["--shard-bytes", "many"], 2, "1GB, 512MiB"),
        (["--codec", "gzip"], 2, "gzip"),
        (["--split", "dev"], 2, "got ['dev']"),
        (["--append", "nowhere"], 1, "no manifest.json"),
        (["--where", "nope = 1"], 1, "cannot be answered"),
        (["--version", "v9"], 1, "v9"),
    ],
)
def test_what_cannot_be_done_is_said(location, tmp_path, arguments, code, said):
    done = run(location, tmp_path / "out", *arguments)
    assert done.exit_code == code, done.output
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1GB", 10**9), ("1G", 10**9), ("512MiB", 2**29), ("1.5 kb", 1500), ("77", 77), ("8B", 8)],
)
def test_bytes_are_read(text, expected):
    assert byte_count(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "1 G B"])
def test_other_texts_are_no_bytes(text):
    with pytest.raises(typer.BadParameter):
        byte_count(text)


def test_the_manifest_is_json_for_anybody(location, tmp_path):
    run(location, tmp_path / "out")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["schema"] == (
        "hypersigma-shards/1"
    )
