"""Each band's sunlight, derived once more from the solar tables by another way of integrating."""

import csv

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from pipeline.sensors import SENSORS, TABLES
from pipeline.steps.radiance import radiance
from pipeline.steps.reflectance import reflectance
from pipeline.steps.sunlight import band_irradiance, irradiance, solar_e490
from storage.schema import SchemaError
from tests.pipeline.raw_products import UNCALIBRATED
from tests.pipeline.test_steps import never_compute

SPECTRA = {"tsis1": "solar_tsis1_hsrs_v2_1nm_air.csv", "e490": "solar_astm_e490.csv"}

TOLERANCE = {SPECTRA["tsis1"]: 4e-3, SPECTRA["e490"]: 5e-4}
"""TSIS-1 is a table of means over 1 nm: where lines of the sun are deep, straight lines between
these and their plain sum differ by up to 0.33 % in bands of 4.3 nm (0.03 % in those of 11 nm)."""


def read_table(name):
    lines = (TABLES / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def column(rows, name):
    return np.array([float(row[name] or "nan") for row in rows])


def derived(centre, fwhm, spectrum):
    """(band), by the trapezoid rule every 0.05 nm over three widths to either side."""
    nm, sun = np.array([[float(v) for v in row.values()] for row in read_table(spectrum)]).T
    out = []
    for middle, width in zip(centre, fwhm, strict=True):
        fine = np.arange(middle - 3 * width, middle + 3 * width, 0.05)
        response = 2.0 ** -(((fine - middle) / (width / 2)) ** 2)  # half at half the width
        light = np.trapezoid(response * np.interp(fine, nm, sun), fine)
        out.append(light / np.trapezoid(response, fine))
    return np.array(out)


SHIPPED = sorted(
    (path.name, name)
    for path in TABLES.glob("*.csv")
    for name in read_table(path.name)[0]
    if name.startswith(("esun_tsis1", "esun_e490"))
)


def test_every_sensor_that_has_irradiance_is_tested():
    tested = {table.removesuffix(".csv") for table, _ in SHIPPED}
    assert tested == {name for name, sensor in SENSORS.items() if sensor.irradiance}


@pytest.mark.parametrize(("table", "name"), SHIPPED)
def test_shipped_irradiance_follows_from_the_spectrum(table, name):
    rows = read_table(table)
    spectrum = next(SPECTRA[key] for key in SPECTRA if key in name)
    centre, fwhm = column(rows, "wavelength_nm"), column(rows, "fwhm_nm")
    found = derived(centre, fwhm, spectrum)
    np.testing.assert_allclose(column(rows, name), found, rtol=TOLERANCE[spectrum])


@pytest.mark.parametrize("solar", SPECTRA)
@pytest.mark.parametrize("sensor", ["hyperion", "gf5b", "gf5"])
def test_band_irradiance_follows_from_the_spectrum(sensor, solar):
    rows = [row for row in read_table("synth_bands.csv") if row["sensor"] == sensor]
    centre, fwhm = column(rows, "wavelength_nm"), column(rows, "fwhm_nm")
    scene = make_scene(band=column(rows, "band").astype(int), wavelength=centre, fwhm=fwhm)
    expected = derived(centre, fwhm, SPECTRA[solar])
    np.testing.assert_allclose(irradiance(scene, solar), expected, rtol=TOLERANCE[SPECTRA[solar]])


def test_the_solar_constant_is_that_of_e490():
    nm, sun = solar_e490()
    # E-490 has 1366.1 W m-2 in all; 300 to 2700 nm are 95.5 % of a sun of 5772 K
    assert np.trapezoid(sun, nm) / 1000 == pytest.approx(0.955 * 1366.1, rel=0.01)


def make_scene(*, band, wavelength, fwhm, sensor="hyperion", **attrs):
    dn = np.full((len(band), 2, 3), 1000, "int16")
    coords = {
        name: ("band", np.broadcast_to(value, len(band)))
        for name, value in {
            "wavelength": wavelength, "fwhm": fwhm, "gain": 0.0125, "offset": 0.0,
        }.items()
    }  # fmt: skip
    base = {"sensor": sensor, "scene_id": "S", "nodata": 0, "sun_elevation": 30.0,
            "acquired": "2013-07-24T09:41:20Z", "steps": []}  # fmt: skip
    return xr.Dataset(
        {"dn": (("band", "y", "x"), da.from_array(dn))}, {"band": np.asarray(band), **coords},
        {**base, **attrs},
    )  # fmt: skip


@pytest.fixture
def hyperion():
    rows = [row for row in read_table("synth_bands.csv") if row["sensor"] == "hyperion"]
    return make_scene(
        band=np.arange(1, 243), wavelength=column(rows, "wavelength_nm"),
        fwhm=column(rows, "fwhm_nm"),
    )  # fmt: skip


def test_usgs_against_tsis1_is_as_known(hyperion):
    ratio = irradiance(hyperion, "usgs") / irradiance(hyperion, "tsis1")
    live = np.setdiff1d(np.arange(1, 243), UNCALIBRATED)
    ratio = ratio[live - 1]
    assert len(ratio) == 198
    assert (ratio.mean(), ratio.std()) == pytest.approx((1.008, 0.014), abs=1e-3)
    assert (live[ratio.argmin()], live[ratio.argmax()]) == (37, 166)
    assert (ratio.min(), ratio.max()) == pytest.approx((0.919, 1.041), abs=1e-3)


def test_usgs_against_e490_is_as_known(hyperion):
    ratio = irradiance(hyperion, "usgs") / irradiance(hyperion, "e490")
    live = np.setdiff1d(np.arange(1, 243), UNCALIBRATED) - 1
    assert (ratio[live].mean(), ratio[live].std()) == pytest.approx((0.993, 0.015), abs=1e-3)


def test_usgs_gives_nan_where_its_table_is_zero(hyperion):
    with dask.config.set(scheduler=never_compute):
        out = reflectance(radiance(hyperion), solar="usgs")
    without = np.isnan(out.reflectance.values).all(axis=(1, 2))
    np.testing.assert_array_equal(out.band[without], range(235, 243))
    assert not np.isinf(out.reflectance).any()
    step = out.attrs["steps"][-1]
    assert step["solar"] == "usgs"
    assert step["bands_without_irradiance"] == list(range(235, 243))


def test_reflectances_of_two_suns_are_as_their_irradiances(hyperion):
    scene = radiance(hyperion)
    one, two = (reflectance(scene, solar=solar) for solar in ("tsis1", "e490"))
    ratio = irradiance(hyperion, "tsis1") / irradiance(hyperion, "e490")
    found = (two.reflectance / one.reflectance)[:, 0, 0]
    np.testing.assert_allclose(found, ratio, rtol=1e-6)
    assert [scene.attrs["steps"][-1]["solar"] for scene in (one, two)] == ["tsis1", "e490"]


def test_usgs_is_refused_for_other_sensors(hyperion):
    scene = radiance(hyperion.assign_attrs(sensor="ahsi"))
    with pytest.raises(SchemaError, match="Hyperion's bands, got sensor ahsi; choose tsis1"):
        reflectance(scene, solar="usgs")


def test_e490_ends_where_it_ends():
    with pytest.raises(SchemaError, match=r"300\.5\.\."):
        band_irradiance([300.0], [10.0], solar_e490)
