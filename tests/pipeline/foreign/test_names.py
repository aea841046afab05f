import re

import numpy as np
import pytest

from pipeline.foreign.arrays import UnfitError
from pipeline.foreign.names import read_name, split_of


@pytest.mark.parametrize(
    ("name", "scene", "sensor"),
    [
        ("EO1H1230242013205110KF_17", "EO1H1230242013205110KF", "hyperion"),
        ("EO1H1230242013205110KF_1T_3_14", "EO1H1230242013205110KF", "hyperion"),
        ("EO1_part_3_14", "EO1_part", "hyperion"),
        ("eo1x", "eo1x", "hyperion"),
        ("GF5B_AHSI_E115.6_N41.2_20220101_012345_L10000123456_7",
         "GF5B_AHSI_E115p6_N41p2_20220101_012345_L10000123456", "ahsi"),
        ("GF5_7", "GF5", "ahsi"),
    ],
)  # fmt: skip
def test_scene_and_sensor_by_name(name, scene, sensor):
    found = read_name(name, None, None)
    assert (found.scene_id, found.sensor, found.row, found.col) == (scene, sensor, -1, -1)
    assert found.tile_id == name.replace("5.6", "5p6").replace("1.2", "1p2")


def test_names_of_our_own_tiles_have_places():
    found = read_name("EO1H1_r64_c128", None, None)
    assert (found.tile_id, found.scene_id) == ("EO1H1_r64_c128", "EO1H1")
    assert (found.row, found.col) == (64, 128)


def test_a_pattern_says_more():
    pattern = re.compile(r"(?P<col>\d+)-(?P<row>\d+)-(?P<scene>.+)")
    found = read_name("5-7-at b", "enmap", pattern)
    assert (found.tile_id, found.scene_id, found.sensor) == ("at-b_r7_c5", "at-b", "enmap")
    with pytest.raises(UnfitError, match="a name like"):
        read_name("5-x", "enmap", pattern)
    with pytest.raises(UnfitError, match="in pixels"):
        read_name("a-b", "ahsi", re.compile("(?P<scene>.)-(?P<row>.)"))


def test_scenes_named_in_other_letters_stay_apart():
    found = [read_name(f"EO1 {word}_1", None, None) for word in ("\u573a\u4e00", "\u573a\u4e8c")]
    assert len({one.scene_id for one in found}) == len({one.tile_id for one in found}) == 2
    assert all(one.tile_id.isascii() for one in found)


def test_names_that_do_not_do():
    with pytest.raises(UnfitError, match="begins with EO1 or GF5"):
        read_name("tile", None, None)
    with pytest.raises(UnfitError, match="at most 87"):
        read_name("EO1" + "x" * 90, None, None)


def test_shares_are_kept_and_visits_of_a_place_stay_together():
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    found = [split_of(f"s{number}", shares) for number in range(4000)]
    for split, share in shares.items():
        assert found.count(split) / 4000 == pytest.approx(share, abs=0.03)
    visits = [f"EO1H123024{year}205110KF" for year in range(2001, 2017)]
    assert len({split_of(name, shares) for name in visits}) == 1
    assert split_of("x", {"val": 1.0}) == "val"
    assert np.unique([split_of(f"s{n}", {"train": 0.5, "test": 0.5}) for n in range(99)]).size == 2
