import json
import re

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.catalogue.query import query
from storage.index import read_index
from storage.schema import SchemaError
from storage.store import open_version
from tests.storage.test_export import dated
from tests.storage.tiles import build, make_store


@pytest.fixture
def location(tmp_path):
    place = tmp_path / "store"
    old = dated("s1", sensor="ahsi").assign_attrs(acquired="1999-01-01T00:00:00Z")
    build(make_store(place), old, dated("s2", count=8))
    return place


def test_a_condition_selects_what_numpy_selects(location):
    table = read_index(open_version(location)).to_pandas()
    expected = table[(table.valid_fraction < 0.9) & (table.sensor == "hyperion")]
    found = query(location, "valid_fraction < 0.9 and sensor = 'hyperion'", columns=["tile_id"])
    assert set(found["tile_id"].to_pylist()) == set(expected.tile_id)
    assert 0 < len(found) < 8


def test_quality_columns_have_short_names(location):
    condition = "valid < 0.9"
    found, expected = (query(location, asked) for asked in (condition, "valid_fraction < 0.9"))
    assert found["tile_id"].equals(expected["tile_id"])
    assert query(location, condition, columns=["valid"]).column_names == ["valid_fraction"]


def test_scenes_attributes_can_be_asked_for(location):
    found = query(location, "acquired < '2000-01-01'", columns=["scene_id", "acquired"])
    assert set(found["scene_id"].to_pylist()) == {"s1"}
    assert {time.year for time in found["acquired"].to_pylist()} == {1999}


def test_order_and_limit(location):
    found = query(location, "true", columns=["tile_id"], limit=7)["tile_id"].to_pylist()
    assert found == [f"s1_r{64 * (i // 3)}_c{64 * (i % 3)}" for i in range(5)] + [
        "s2_r0_c0",
        "s2_r0_c64",
    ]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("nope > 1", r'"nope" not found.*columns are tile_id.*valid_fraction \(valid\)'),
        ("valid <", "syntax error"),
        ("true; drop table tiles", "modifiers"),
        ("true) or (true", "syntax error"),
        ("true limit 1", "modifiers"),
        ("exists(from read_csv('{file}'))", "file system operations are disabled"),
        ("exists(from read_text('{file}'))", "file system operations are disabled"),
        ("exists(from '{file}')", "file system operations are disabled"),
        ("exists(from nobody)", "does not exist"),
    ],
)
def test_refuses_what_is_no_condition_on_tiles(location, tmp_path, condition, message):
    file = tmp_path / "secret.csv"
    file.write_text("a\n1\n")
    with pytest.raises(SchemaError, match=re.compile(message, re.DOTALL)):
        query(location, condition.format(file=file))


def test_refuses_unknown_columns(location):
    with pytest.raises(SchemaError, match=r"columns must be among .* got \['colour'\]"):
        query(location, "true", columns=["colour"])


def run(*arguments):
    return CliRunner().invoke(app, ["query", *map(str, arguments)])


def test_command_prints_counts_and_json(location):
    said = run("sensor = 'ahsi'", location)
    assert said.exit_code == 0
    assert said.stdout.splitlines()[0].split() == ["tile_id", "sensor", "split", "lon", "lat"]
    assert said.stdout.splitlines()[-1] == "5 tiles"
    found = json.loads(run("sensor = 'ahsi'", location, "--json", "--limit", 2).stdout)
    assert (found["tiles"], found["rows"][0]["tile_id"]) == (2, "s1_r0_c0")
    wrong = run("sensor = ", location)
    assert (wrong.exit_code, wrong.stdout) == (1, "")


def test_command_writes_files(location, tmp_path):
    assert run("true", location, "--out", tmp_path / "a.parquet").exit_code == 0
    assert run("true", location, "--out", tmp_path / "b.csv").exit_code == 0
    names = pq.read_table(tmp_path / "a.parquet")["tile_id"].to_pylist()
    assert pyarrow.csv.read_csv(tmp_path / "b.csv")["tile_id"].to_pylist() == names
    assert len(names) == 13
    assert "as .parquet or .csv, got c.txt" in run("true", location, "--out", "c.txt").stderr
