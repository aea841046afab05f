import json

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.audit.proof import audit
from pipeline.split import SplitConfig, assign
from pipeline.windows import windows
from storage import store
from storage.schema import FOOTPRINT_COORDS
from tests.storage.tiles import build, make_tiles

SPLIT = {"block_km": 6.0, "guard_m": 500.0, "fractions": {"train": 0.5, "val": 0.2, "test": 0.3}}


@pytest.fixture
def location(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def repo(location):
    recipe = json.dumps({"steps": [], "split": {**SPLIT, "seed": 0}})
    return store.create(location, dataset="demo", recipe=recipe, recipe_hash="abc")


def scene(name, *, east=0, north=0, rows=640, cols=640, seed=0, split=None, edit=None, **options):
    """A scene whose tiles are where a map of 30 m pixels says, in the splits that `assign` says."""
    place = {"crs": "EPSG:32633",
             "transform": [30.0, 0.0, 366000.0 + east, 0.0, -30.0, 5809000.0 + north]}  # fmt: skip
    config = SplitConfig(**SPLIT)
    found = windows(
        place, (rows, cols),
        lambda lon, lat: np.full(len(lon), split) if split else assign(config, lon, lat),
    )  # fmt: skip
    here = found.reason == ""
    tiles = make_tiles(name, int(here.sum()), 8, seed=seed, **options)
    columns = {n: getattr(found, n)[here] for n in ("row", "col", "lon", "lat", "split")}
    columns |= {n: column[here] for n, column in found.footprint.items()}
    tiles = tiles.assign_coords({n: ("tile", c) for n, c in columns.items()})
    return edit(tiles) if edit else tiles


def test_what_the_split_made_is_clean(repo, location):
    build(repo, scene("a"), scene("b", east=900, north=-4000, seed=1, sensor="ahsi"))
    found = audit(location)
    assert found.passed, found.breaches
    assert found.promised_m == 1000
    least = [place.distance_m for place in found.places]
    assert 999 <= min(least) < 4000
    assert found.scenes_in_several_splits == 2
    assert found.nearest_within_a_scene_m >= 999
    assert found.counts["in"] == found.counts["kept"] + found.counts["rejected"]
    assert found.counts["kept"] == found.tiles
    assert set(found.shares) == {"all", "hyperion", "ahsi"}
    assert sum(found.shares["all"].values()) == pytest.approx(1)
    assert json.loads(found.to_json())["passed"] is True


def test_a_place_of_another_date_in_another_split_is_named(repo, location):
    build(repo, scene("a", split="train"), scene("later", seed=1, east=100, split="test"))
    found = audit(location)
    assert not found.passed
    (breach,) = found.breaches
    assert breach.startswith("train and test: ")
    assert "later_r" in breach
    assert "overlap" in breach
    assert breach.count(" and a_r") + breach.count("a_r") >= 10
    (place,) = [p for p in found.places if p.splits == ("train", "test")]
    assert place.distance_m == 0
    assert place.too_near > 36


@pytest.mark.parametrize(("gap", "clean"), [(997, False), (1004, True)])
def test_the_promise_is_kept_to_the_metre(repo, location, gap, clean):
    one = scene("a", rows=64, cols=64, split="train")
    other = scene("b", rows=64, cols=64, split="val", seed=1, east=1920 + gap)
    build(repo, one, other)
    found = audit(location)
    assert found.passed is clean
    assert found.places[0].distance_m == pytest.approx(gap, abs=1.5)
    if not clean:
        assert "b_r0_c0" in found.breaches[0]
        assert f"{found.places[0].distance_m:.0f} m apart" in found.breaches[0]


def test_a_copy_far_away_in_another_split_is_a_breach(repo, location):
    def copied(tiles):
        tiles.tiles[0] = source.tiles[3].values + 5
        tiles.valid[0] = source.valid[3].values
        return tiles

    source = scene("a", split="train")
    build(repo, source, scene("far", east=300_000, split="val", seed=4, edit=copied))
    found = audit(location)
    (breach,) = found.breaches
    assert "1 pictures are in several splits" in breach
    assert "far_r0_c0 (val)" in breach
    assert "(train)" in breach
    assert found.copies.across_splits == 1


def test_a_copy_in_its_own_split_is_a_note(repo, location):
    def twice(tiles):
        tiles.tiles[1] = tiles.tiles[0].values
        tiles.valid[1] = tiles.valid[0].values
        return tiles

    build(repo, scene("a", split="train", edit=twice))
    found = audit(location)
    assert found.passed
    assert found.copies.within_split == 1
    assert any("copies of others" in note for note in found.warnings)


def test_unknown_places_are_told_and_refused_in_two_splits(repo, location):
    def lost(tiles):
        return tiles.assign_coords(lon=("tile", np.full(tiles.sizes["tile"], np.nan)))

    build(repo, scene("a", split="train", edit=lost))
    found = audit(location)
    assert found.passed
    assert found.unknown_place == {"train": found.tiles}
    build(repo, scene("b", split="val", seed=1, edit=lost))
    assert "more than one split" in audit(location).breaches[0]


def test_counts_that_do_not_reconcile(repo, location):
    build(repo, scene("a", split="train"), scene("b", split="train", seed=1, east=90_000))
    session = repo.writable_session("main")
    root = zarr.open_group(session.store, mode="r+")
    counts = root["scenes/a"].attrs["counts"]
    root["scenes/a"].attrs["counts"] = {**counts, "in": counts["in"] + 1}
    root["index/row"][1:2] = root["index/row"][:1]
    root["index/col"][1:2] = root["index/col"][:1]
    del root["scenes/b"]
    metadata = next(repo.ancestry(branch="main")).metadata
    session.commit("v2", {**metadata, "version": "v2"})
    repo.create_tag("v2", repo.lookup_branch("main"))
    found = audit(location, "v2")
    assert "a: 100 tiles in the index" in found.breaches[0]
    assert "b: in the index, not stored" in found.breaches[0]
    assert "1 tiles are in the index twice: a_r0_c0" in found.breaches[1]
    assert audit(location, "v1").passed


def test_shares_off_the_wanted_are_a_note_also_by_sensor_and_water(repo, location):
    def wet(tiles):
        share = np.zeros(tiles.sizes["tile"], "f4")
        share[:10] = 1
        return tiles.assign_coords(water_fraction=("tile", share))

    build(repo, scene("a", split="train", edit=wet))
    found = audit(location)
    assert found.passed
    assert found.shares["water"] == {"train": 1.0, "val": 0.0, "test": 0.0}
    assert {note.split(":")[0] for note in found.warnings} == {"all", "hyperion", "land", "water"}


def test_a_store_without_footprints_is_not_proven(tmp_path):
    repo = store.create(tmp_path / "s", dataset="d", recipe="steps: []", recipe_hash="x")
    tiles = make_tiles("a", 6)
    unknown = {n: ("tile", np.full(6, np.nan, "f4")) for n in FOOTPRINT_COORDS}
    build(repo, tiles.assign_coords(unknown))
    found = audit(tmp_path / "s")
    assert not found.passed
    assert "overlaps alone" in found.warnings[0]


def test_the_command_tells_and_exits(repo, location, tmp_path):
    build(repo, scene("a"))
    runner = CliRunner()
    done = runner.invoke(app, ["audit", str(location), "--out", str(tmp_path / "c.json")])
    assert done.exit_code == 0, done.output
    assert "no leak between splits" in done.output
    written = json.loads((tmp_path / "c.json").read_text())
    assert (written["passed"], written["version"]) == (True, "v1")
    build(repo, scene("b", seed=1, east=50, split="val"))
    done = runner.invoke(app, ["audit", str(location)])
    assert done.exit_code == 1
    assert "breach: train and val" in done.output
    done = runner.invoke(app, ["audit", str(location), "--json", "--version", "v1"])
    assert json.loads(done.stdout)["version"] == "v1"
