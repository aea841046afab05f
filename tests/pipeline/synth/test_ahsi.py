import datetime as dt
import re

import numpy as np
import pytest
from defusedxml import ElementTree
from rasterio.transform import RPCTransformer

NAME = {
    "GF5B": r"GF5B_AHSI_[EW]\d+\.\d_[NS]\d+\.\d_\d{8}_\d{6}_L1\d{10}",
    "GF5": r"GF5_AHSI_[EW]\d+\.\d\d_[NS]\d+\.\d\d_\d{8}_\d{6}_L1\d{10}",
}


@pytest.fixture
def xml(ahsi):
    root = ElementTree.fromstring(ahsi.xml)
    assert root.tag == "ProductMetaData"
    assert not any(len(child) for child in root)
    return {child.tag: child.text for child in root}


def test_names_follow_the_satellite(ahsi):
    scene = ahsi.scene
    assert re.fullmatch(NAME[scene.platform], scene.product)
    stem, platform = scene.product, scene.platform
    if platform == "GF5B":
        assert scene.file.name == f"{stem}.tar.gz"
        suffix, sidecars = "tif", ["RadCal_SWIR", "RadCal_VNIR"]
        sidecars += ["Spectralresponse_SWIR", "Spectralresponse_VNIR"]
    else:
        assert scene.file.is_dir()
        suffix, sidecars = "geotiff", ["SWIR_RadCal", "SWIR_Spectralresponse"]
        sidecars += ["VNIR_RadCal", "VNIR_Spectralresponse"]
    expected = [f"{stem}_{part}.{end}" for part in ("VN", "SW") for end in (suffix, "rpb")]
    expected += [f"{stem}.xml", *(f"{platform}_AHSI_{words}.raw" for words in sidecars)]
    assert ahsi.folder.name == stem
    assert ahsi.names == sorted(expected)


def test_rasters_are_uint16_in_sensor_geometry(ahsi):
    for part, count in (("VN", 150), ("SW", 180)):
        profile = ahsi.rasters[part].profile
        assert (profile["count"], profile["dtype"]) == (count, "uint16")
        assert (profile["height"], profile["width"]) == (384, 320)
        assert profile["crs"] is None
        assert profile["transform"].is_identity


def test_dn_are_12_bit_and_zero_where_nothing_was_taken(ahsi):
    valid = ahsi.scene.labels > 0
    assert not valid[-2:].any()
    assert valid[:-2].all()
    for raster in ahsi.rasters.values():
        assert not raster.dn[:, ~valid].any()
        assert raster.dn[:, valid].min() >= 1
        assert raster.dn.max() <= 4095
    saturated = (ahsi.rasters["VN"].dn == 4095).mean()
    assert saturated < 0.001


def test_text_tables_have_a_row_per_band_and_the_right_separator(ahsi):
    for name, text in ahsi.texts.items():
        rows = text.split("\n")
        assert rows.pop() == ""
        assert len(rows) == (150 if "VNIR" in name else 180)
        assert "\r" not in text
        separator = "," if ahsi.scene.platform == "GF5B" else "\t"
        columns = 1 if ahsi.scene.platform == "GF5" and "RadCal" in name else 2
        assert {len(row.split(separator)) for row in rows} == {columns}


def test_text_tables_say_what_made_the_dn(ahsi):
    truth = ahsi.scene.truth
    for detector, rows in (("VNIR", slice(0, 150)), ("SWIR", slice(150, 330))):
        names = {name for name in ahsi.texts if detector in name}
        (radcal,) = [name for name in names if "RadCal" in name]
        (response,) = names - {radcal}
        gains, nanometres = (
            np.array([[float(v) for v in re.split(r"[,\t]", row)] for row in text.splitlines()])
            for text in (ahsi.texts[radcal], ahsi.texts[response])
        )
        np.testing.assert_allclose(gains[:, 0], truth.gain[rows], atol=1e-6)
        if ahsi.scene.platform == "GF5B":
            np.testing.assert_allclose(gains[:, 1], truth.offset[rows], atol=1e-6)
        np.testing.assert_allclose(nanometres[:, 0], truth.wavelength[rows], atol=1e-3)
        np.testing.assert_allclose(nanometres[:, 1], truth.fwhm[rows], atol=1e-3)


def test_water_vapour_bands_have_gains_that_are_not_positive(ahsi):
    truth = ahsi.scene.truth
    bad = truth.gain <= 0
    assert 5 <= bad.sum() <= 12
    wavelength = truth.wavelength[bad]
    near = (np.abs(wavelength - 1375) < 20) | (np.abs(wavelength - 1870) < 40)
    assert near.all()
    assert not truth.live[bad].any()
    dn = ahsi.rasters["SW"].dn[np.flatnonzero(bad) - 150][:, ahsi.scene.labels > 0]
    assert 1 <= dn.min() <= dn.max() < 1000
    assert dn.std() > 0


def test_detectors_overlap_around_1010_nm(ahsi):
    wavelength = ahsi.scene.truth.wavelength
    assert wavelength[149] > wavelength[150] + 8
    assert np.all(np.diff(wavelength[:150]) > 0)
    assert np.all(np.diff(wavelength[150:]) > 0)


def test_rpc_and_xml_put_the_pixels_where_they_are(ahsi, xml):
    truth = ahsi.scene.truth
    corners = {
        "TopLeft": (0, 0), "TopRight": (0, 319), "BottomRight": (383, 319), "BottomLeft": (383, 0),
    }  # fmt: skip
    places = {
        name: tuple(float(xml[f"{name}{key}"]) for key in ("Longitude", "Latitude"))
        for name in [*corners, "Center"]
    }
    for raster in ahsi.rasters.values():
        with RPCTransformer(raster.rpcs, rpc_height=600) as transformer:
            for name, pixel in {**corners, "Center": (191.5, 159.5)}.items():
                lon, lat = places[name]
                row, column = transformer.rowcol(lon, lat, op=float)
                # GDAL counts from the first pixel's corner, RPC from its centre.
                assert (row - 0.5, column - 0.5) == pytest.approx(pixel, abs=0.05), name
    for name, pixel in corners.items():
        assert places[name] == pytest.approx((truth.lon[pixel], truth.lat[pixel]), abs=1e-5)


def test_xml_agrees_with_the_name(ahsi, xml):
    scene = ahsi.scene
    _, _, lon, lat, day, orbit, product = scene.product.split("_")
    digits = len(lon.partition(".")[2])
    assert lon == f"{'EW'[scene.lon < 0]}{abs(float(xml['CenterLongitude'])):.{digits}f}"
    assert lat == f"{'NS'[scene.lat < 0]}{abs(float(xml['CenterLatitude'])):.{digits}f}"
    start = dt.datetime.fromisoformat(xml["StartTime"])
    assert f"{start:%Y%m%d}" == day
    assert f"{start:%Y-%m-%dT%H:%M:%SZ}" == scene.acquired
    assert int(xml["OrbitID"]) == int(orbit)
    assert xml["ProductID"] == product
    assert (xml["SatelliteID"], xml["SensorID"]) == (scene.platform, "AHSI")
    assert xml["ProductLevel"] == "LEVEL1"
    assert int(xml["BandsCount"]) == 330
    assert (int(xml["LinesInPixels"]), int(xml["SamplesInPixels"])) == (384, 320)
    assert float(xml["SolarZenith"]) == pytest.approx(90 - scene.sun_elevation, abs=1e-5)
    assert float(xml["SolarAzimuth"]) == pytest.approx(scene.sun_azimuth, abs=1e-5)
    assert float(xml["ScaleFactor"]) == 1
