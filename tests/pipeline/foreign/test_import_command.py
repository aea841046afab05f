import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app
from storage.shardset import open_shards
from storage.stream import Stream, read_tile
from tests.pipeline.foreign.inputs import npy_bytes, values, write_mat, write_tar


def run(*arguments):
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


def test_splits_of_names_that_tell_no_scene_are_refused(tmp_path):
    for letter in "ab":
        write_mat(tmp_path / "in", f"EO1{letter}", values("EO1"))
    done = run(tmp_path / "in", tmp_path / "out", "--split", "train=0.5,val=0.5")
    assert done.exit_code == 1
    assert "say with --name" in done.output
    done = run(
        tmp_path / "in", tmp_path / "out", "--split", "train=0.5,val=0.5",
        "--name", "(?P<scene>EO1).",
    )  # fmt: skip
    assert done.exit_code == 0, done.output


def test_floats_need_a_scale(tmp_path):
    pixels = values("EO1") / np.float64(8000)
    pixels[:, :3] = np.nan
    write_mat(tmp_path / "in", "EO1_1", pixels)
    done = run(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 1
    assert "give --scale 1 for reflectance" in done.output
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "in", tmp_path / "out", "--scale", 1).exit_code == 0
    shards = open_shards(tmp_path / "out")
    np.testing.assert_array_equal(read_tile(shards, 0), pixels.astype("f4"))
    entry = shards.manifest["sensors"]["hyperion"]
    assert (entry["dtype"], entry["scale"]) == ("float32", 1.0)
    with Stream(shards, [0], batch_size=1, bands=None, seed=0, valid=True) as stream:
        np.testing.assert_array_equal(next(stream).valid[0], np.isfinite(pixels[0]))


@pytest.mark.parametrize(("dtype", "nodata"), [("f8", "1e36"), ("f4", "-9999"), ("i2", "-9999")])
def test_a_value_of_no_measurement_can_be_named(tmp_path, dtype, nodata):
    pixels = values("EO1").astype(dtype)
    pixels[:, :3] = float(nodata)
    write_mat(tmp_path / "in", "EO1_1", pixels)
    done = run(tmp_path / "in", tmp_path / "out", "--scale", 1, "--nodata", nodata)
    assert done.exit_code == 0, done.output
    shards = open_shards(tmp_path / "out")
    pixels[:, :3] = 0
    np.testing.assert_array_equal(read_tile(shards, 0), pixels)
    with Stream(shards, [0], batch_size=1, bands=None, seed=0, valid=True) as stream:
        np.testing.assert_array_equal(next(stream).valid[0], pixels.any(0))
    found = shards.manifest["sensors"]["hyperion"]["statistics"]
    np.testing.assert_allclose(found["mean"], pixels[:, 3:].mean((1, 2)), rtol=1e-3)


def test_another_list_of_bands_is_named(tmp_path):
    write_mat(tmp_path / "in", "x_1", values("x", bands=198))
    done = run(tmp_path / "in", tmp_path / "out", "--sensor", "hyperion")
    assert done.exit_code == 1
    assert "Expected 175 bands of hyperion, got 198." in done.output
    assert "calibrated (198)" in done.output
    done = run(tmp_path / "in", tmp_path / "out", "--sensor", "hyperion", "--bands", "calibrated")
    assert done.exit_code == 0, done.output
    assert open_shards(tmp_path / "out").manifest["sensors"]["hyperion"]["band"][-1] == 224


def test_the_command_tells_what_it_left_out(folder, tmp_path):
    done = run(folder, tmp_path / "out", "--tiles-per-shard", 2)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "9 of 16 inputs left out: NaN (1), bands (1), dtype (1)" in text
    assert "not looked at: .zip (1)" in text
    assert "7 tiles in 4 shards" in text


def test_strict_leaves_no_set(folder, tmp_path):
    done = run(folder, tmp_path / "out", "--strict")
    assert done.exit_code == 1
    assert "unknown.mat: sensor: expected a name" in done.output
    assert not (tmp_path / "out/manifest.json").exists()


def test_nothing_to_take_is_said_in_words(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/EO1-part1.zip").write_bytes(b"PK")
    done = run(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 1
    assert "got .zip (1); unpack archives first" in done.output
    write_mat(tmp_path / "in", "tile_1", values("EO1"))
    done = run(tmp_path / "in", tmp_path / "out")
    assert "sensor (1). tile_1.mat" in done.output
    assert "say with --sensor" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["in", "--split", "dev"], 2, "got 'dev'"),
        (["in", "--split", "train=0"], 2, "got 'train=0'"),
        (["in", "--name", "("], 2, "regular expression"),
        (["in", "--name", "EO1.*"], 2, "(?P<scene>...)"),
        (["in", "--scale", "0"], 2, "greater than 0"),
        (["in", "--scale", "inf"], 2, "greater than 0"),
        (["in", "--sensor", "emit"], 1, "'emit'"),
        (["in", "--bands", "all"], 1, "'all'"),
        (["nowhere"], 1, "nowhere: expected a folder"),
        (["in/x.tar.gz"], 1, "unpack other archives"),
        (["in", "--tiles-per-shard", "1", "--shard-bytes", "1GB"], 2, "got both"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    write_tar_of_one(tmp_path / "in")
    done = run(arguments[0], "out", *arguments[1:])
    assert done.exit_code == code, done.output
    assert said in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def write_tar_of_one(folder):
    folder.mkdir()
    write_tar(folder / "a.tar", [("EO1_1.npy", npy_bytes(values("EO1")))])
    (folder / "x.tar.gz").write_bytes(b"")
