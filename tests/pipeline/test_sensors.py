import csv
import hashlib
import logging
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from pipeline.sensors import SENSORS, TABLES, band_list, solar_irradiance
from pipeline.sensors.sensor import BandList, parse_bands, read_sensor
from pipeline.steps.bands import bands
from storage import schema

SHARED = Path(__file__).parents[2] / "../shared/sensors"
LISTS = [(sensor, name) for sensor, one in SENSORS.items() for name in one.lists]
KNOWN = {
    "hyperglobal": 175, "calibrated": 198, "unique_196": 196, "unique_196_keep_vnir": 196,
    "surehyp_195": 195, "tutorials_176": 176, "datt_155": 155, "botswana_145": 145,
}  # fmt: skip


def test_the_store_knows_the_same_sensors():
    assert set(SENSORS) == set(schema.SENSORS)
    assert schema.SENSORS[:2] == ("hyperion", "ahsi")  # stores have their places as codes
    assert all(sensor.name == name for name, sensor in SENSORS.items())


def test_bands_are_numbered_from_1_by_detector():
    counts = {name: sensor.counts for name, sensor in SENSORS.items()}
    assert counts["hyperion"] == {"VNIR": 70, "SWIR": 172}
    assert counts["ahsi"] == {"VNIR": 150, "SWIR": 180}
    assert counts["zy1_ahsi"] == {"VNIR": 76, "SWIR": 90}
    for sensor in SENSORS.values():
        np.testing.assert_array_equal(sensor.band, 1 + np.arange(len(sensor.band)))


def test_gain_is_hyperions_scaling_and_each_products_own_elsewhere():
    np.testing.assert_array_equal(SENSORS["hyperion"].gain, [1 / 40] * 70 + [1 / 80] * 172)
    assert np.isnan(SENSORS["ahsi"].gain).all()


@pytest.mark.parametrize("name", [name for name in SENSORS if SENSORS[name].irradiance])
def test_sunlight_of_each_band_is_the_solar_tables(name):
    sensor, (nm, sun) = SENSORS[name], solar_irradiance()
    width = sensor.fwhm[:, None] / np.sqrt(8 * np.log(2))  # the Gaussian's standard deviation
    response = np.exp(-(((nm - sensor.wavelength[:, None]) / width) ** 2) / 2)
    expected = np.average(np.broadcast_to(sun, response.shape), axis=1, weights=response)
    np.testing.assert_allclose(sensor.irradiance["tsis1"], expected, rtol=2e-5)


def test_usgs_sunlight_is_near_and_unknown_where_its_table_has_zeros():
    sensor = SENSORS["hyperion"]
    usgs, tsis = sensor.irradiance["usgs"], sensor.irradiance["tsis1"]
    assert np.flatnonzero(np.isnan(usgs)).tolist() == list(range(234, 242))
    calibrated = np.array(band_list("hyperion", "calibrated").bands) - 1
    ratio = usgs[calibrated] / tsis[calibrated]
    assert ratio.mean() == pytest.approx(1.008, abs=1e-3)
    assert sensor.band[calibrated[ratio.argmin()]] == 37  # 8 % low, as the fact sheet says


@pytest.mark.parametrize(("sensor", "name"), LISTS)
def test_a_list_has_the_bands_of_its_hash_and_says_where_from(sensor, name):
    found = band_list(sensor, name)
    text = ",".join(str(band) for band in found.bands)
    assert hashlib.sha256(text.encode()).hexdigest() == found.sha256
    assert list(found.bands) == sorted(set(found.bands))
    assert (found.sensor, found.name) == (sensor, name)
    assert found.source


def test_hyperions_lists_have_the_counts_that_they_are_known_by():
    assert {n: len(x.bands) for n, x in SENSORS["hyperion"].lists.items()} == KNOWN
    doubted = {name for name, x in SENSORS["hyperion"].lists.items() if x.doubt}
    assert doubted == {"unique_196_keep_vnir", "tutorials_176", "datt_155"}


def test_calibrated_leaves_out_water_and_overlap():
    for name in ("ahsi", "zy1_ahsi"):
        sensor = SENSORS[name]
        kept = sensor.wavelength[np.array(band_list(name, "calibrated").bands) - 1]
        assert not (((kept > 1354) & (kept < 1430)) | ((kept > 1800) & (kept < 1952))).any()
        assert (np.diff(kept) > 0).all()  # VNIR ends before SWIR begins
        assert kept.max() < 2490
    assert band_list("ahsi", "good").bands == band_list("ahsi", "calibrated").bands


def test_rejects_unknown_sensors_and_lists():
    with pytest.raises(KeyError, match=r"'hyperion'.*'zy1_ahsi'.*got 'avhrr'"):
        band_list("avhrr", "calibrated")
    with pytest.raises(KeyError, match=r"zy1_ahsi has the band lists \['calibrated'\]"):
        band_list("zy1_ahsi", "hyperglobal")
    other = BandList("ahsi", "x", 1, parse_bands("330-331"), "", "")
    with pytest.raises(ValueError, match="ahsi/x has other bands"):
        read_sensor("ahsi", "AHSI", other)


def test_a_doubtful_list_is_warned_of_and_recorded(caplog):
    dn = da.ones((242, 2, 2), dtype="int16")
    scene = xr.Dataset({"dn": (("band", "y", "x"), dn)}, {"band": np.arange(1, 243)},
                       {"sensor": "hyperion", "scene_id": "S", "steps": []})  # fmt: skip
    with caplog.at_level(logging.WARNING):
        assert "doubt" not in bands(scene, name="botswana_145").attrs["steps"][0]
        assert not caplog.records
        out = bands(scene, name="datt_155")
    assert "from memory" in out.attrs["steps"][0]["doubt"]
    assert "datt_155" in caplog.text


@pytest.mark.parametrize("table", sorted(TABLES.glob("*.csv")), ids=lambda path: path.name)
def test_every_table_begins_with_source_and_unit(table):
    assert table.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no sensor facts at {SHARED}")
@pytest.mark.parametrize(
    ("name", "file"),
    [("hyperion", "hyperion_bands.csv"), ("ahsi", "ahsi_bands.csv"),
     ("zy1_ahsi", "zy1_ahsi_bands.csv")],
)  # fmt: skip
def test_tables_have_the_sources_numbers(name, file):
    with (SHARED / file).open() as opened:
        rows = list(csv.DictReader(opened))
    sensor = SENSORS[name]
    np.testing.assert_array_equal(sensor.wavelength, [float(row["centre_nm"]) for row in rows])
    np.testing.assert_array_equal(sensor.fwhm, [float(row["fwhm_nm"]) for row in rows])
    assert list(sensor.detector) == [row["detector"] for row in rows]
    if "esun_tsis1v2" in rows[0]:  # convolved by others with a finer solar spectrum
        elsewhere = np.array([float(row["esun_tsis1v2"]) for row in rows])
        error = sensor.irradiance["tsis1"] / elsewhere - 1
        assert abs(error).max() < 0.01, abs(error).max()
        assert np.median(abs(error)) < 5e-4
