import json

import numpy as np
import pytest

from pipeline.inspect import inspect_scene, ranges
from tests.pipeline import raw_products as raw


def test_tells_what_an_l1t_is(tmp_path):
    dn = raw.hyperion_dn(70, 80)
    dn[:, :10] = 0
    info = inspect_scene(raw.write_l1t(tmp_path / "p", dn))
    assert (info["sensor"], info["bands"], info["shape"]) == ("hyperion", 242, [70, 80])
    assert (info["sun_elevation"], info["sun_azimuth"]) == (30.0, 259.5)
    assert info["crs"] == "EPSG:32633"
    area = info["valid_area"]
    assert area["fraction"] == pytest.approx(6 / 7)
    # 60 x 80 pixels of 30 m; UTM's scale is within 0.1 % of 1, the sphere within 0.5 %
    assert area["km2"] == pytest.approx(60 * 80 * 0.0009, rel=6e-3)
    west, south, east, north = area["bbox"]
    assert 12.9 < west < east < 13.1
    assert (north - south) * 111.2 == pytest.approx(60 * 0.03, rel=0.05)
    assert info["problems"] == ["bands not calibrated or flagged: 1-7, 58-76, 225-242"]
    json.dumps(info, allow_nan=False)


def test_tells_problems_of_an_l1r(tmp_path):
    flags = np.zeros((242, 70, 80), "u1")
    flags[[9, 99], :, 5] = 2
    info = inspect_scene(raw.write_l1r(tmp_path / "p", flags=flags))
    assert info["sun_elevation"] is None
    text = "; ".join(info["problems"])
    assert "2 dead detectors (a column of a band), in bands 10, 100" in text
    assert "sun angles missing" in text
    # 0.2 x 0.2 deg at 52.4 N between the centres of the corner pixels, and half a pixel around
    high, wide = 0.2 * 70 / 69, 0.2 * 80 / 79
    km2 = high * wide * 111.195**2 * np.cos(np.radians(52.4))
    assert info["valid_area"]["km2"] == pytest.approx(km2, rel=1e-3)
    box = [13 - wide / 2, 52.4 - high / 2, 13 + wide / 2, 52.4 + high / 2]
    assert info["valid_area"]["bbox"] == pytest.approx(box, abs=1e-6)


def test_tells_problems_of_an_ahsi(tmp_path):
    info = inspect_scene(raw.write_ahsi(tmp_path / "p", raw.ahsi_dn(70, 80), ScaleFactor=10))
    assert (info["platform"], info["dtype"], info["bands"]) == ("GF-5B", "uint16", 330)
    text = "; ".join(info["problems"])
    assert "gains <= 0 in bands 193-195" in text
    assert "ScaleFactor is not 1" in text


def test_an_empty_scene_has_no_area(tmp_path):
    info = inspect_scene(raw.write_l1r(tmp_path / "p", np.zeros((242, 5, 4), "i2")))
    assert info["valid_area"] == {"fraction": 0.0, "km2": None, "bbox": None}
    assert "no valid pixel" in info["problems"]


def test_ranges_are_written_short():
    assert ranges([3, 1, 2, 7, 9, 10]) == "1-3, 7, 9-10"
    assert ranges([]) == ""
