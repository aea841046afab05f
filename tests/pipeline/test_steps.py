import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from pipeline.sensors import band_list, solar_irradiance
from pipeline.steps.bands import bands
from pipeline.steps.masks import empty_columns, mask
from pipeline.steps.normalize import normalize
from pipeline.steps.radiance import radiance
from pipeline.steps.reflectance import reflectance
from pipeline.steps.sunlight import band_irradiance, earth_sun_distance
from storage.schema import SceneError, SchemaError

GAIN = np.array([0.025, 0.025, 0.0125, -0.1, 0.0])
NUMBERS = np.array([8, 20, 100, 101, 102])  # calibrated ones of Hyperion


def never_compute(*args, **kwargs):
    raise AssertionError("computed a dask graph while building it")


def make_scene(dn, *, gain=GAIN, sensor="hyperion", band=NUMBERS, flags=None, **attrs):
    dims = ("band", "y", "x")
    variables = {"dn": (dims, da.from_array(dn, chunks=(-1, 64, -1)))}
    if flags is not None:
        variables["flags"] = (dims, da.from_array(flags, chunks=(-1, 64, -1)))
    coords = {
        "band": band,
        "wavelength": ("band", np.linspace(450, 900, len(band))),
        "fwhm": ("band", np.full(len(band), 11.0)),
        "gain": ("band", gain),
        "offset": ("band", np.full(len(band), 0.5)),
    }
    base = {"sensor": sensor, "scene_id": "S", "nodata": 0, "sun_elevation": 30.0,
            "acquired": "2013-07-24T09:41:20Z", "steps": []}  # fmt: skip
    return xr.Dataset(variables, coords, {**base, **attrs})


@pytest.fixture
def dn():
    dn = np.random.default_rng(0).integers(1, 32767, (5, 70, 8)).astype("int16")
    dn[:, :, 0] = 0  # a border
    dn[2, 10, 3] = 0  # dark water in one band
    return dn


def test_hyperglobal_keeps_175_and_150_bands():
    hyperion = [*range(8, 58), *range(77, 121), *range(127, 167), *range(181, 222)]
    assert list(band_list("hyperion", "hyperglobal").bands) == hyperion
    assert len(hyperion) == 175
    assert list(band_list("ahsi", "hyperglobal").bands) == list(range(1, 151))


def test_calibrated_keeps_198_and_292_bands():
    assert len(band_list("hyperion", "calibrated").bands) == 198
    kept = set(band_list("ahsi", "calibrated").bands)
    flagged = {*range(146, 151), *range(192, 202), *range(245, 264), *range(327, 331)}
    assert kept == set(range(1, 331)) - flagged
    assert len(flagged) == 38


def test_bands_keeps_the_list_in_its_order_with_its_coordinates():
    dn = np.arange(330)[:, None, None] * np.ones((1, 2, 2), "uint16")
    scene = make_scene(dn, sensor="ahsi", band=np.arange(1, 331), gain=np.arange(330.0))
    with dask.config.set(scheduler=never_compute):
        out = bands(scene, name="calibrated")
    np.testing.assert_array_equal(out.band, band_list("ahsi", "calibrated").bands)
    np.testing.assert_array_equal(out.dn[:, 0, 0], out.band - 1)
    np.testing.assert_array_equal(out.gain, out.band - 1)
    assert out.attrs["steps"][0]["count"] == 292
    assert scene.attrs["steps"] == []


def test_bands_rejects_unknown_lists_and_missing_bands(dn):
    with pytest.raises(KeyError, match="calibrated"):
        bands(make_scene(dn), name="calibrate")
    with pytest.raises(SceneError, match="no bands"):
        bands(make_scene(dn), name="calibrated")


def test_radiance_is_gain_times_dn_plus_offset(dn):
    with dask.config.set(scheduler=never_compute):
        out = radiance(make_scene(dn)).radiance
    expected = GAIN[:3, None, None] * dn[:3].astype("float64") + 0.5
    np.testing.assert_allclose(out[:3], expected, rtol=1e-6)
    assert np.isnan(out[3:]).all()  # gains that are negative and zero
    assert (out.dtype, out.units) == ("float32", "W m-2 sr-1 um-1")


def test_radiance_of_the_largest_uint16_does_not_overflow():
    dn = np.full((5, 64, 2), 65535, "uint16")
    out = radiance(make_scene(dn)).radiance
    np.testing.assert_allclose(out[2], 65535 * 0.0125 + 0.5, rtol=1e-6)


def test_radiance_is_nan_where_l1r_has_fill(dn):
    dn[1, 4, 4] = -32767
    out = radiance(make_scene(dn, fill=-32767)).radiance
    assert np.isnan(out[1, 4, 4])
    assert np.isfinite(out[1, 4, 5])


def test_radiance_rejects_unknown_scaling_and_the_wrong_order(dn):
    with pytest.raises(SchemaError, match="ScaleFactor must be 1, got 100"):
        radiance(make_scene(dn, scale_factor=100.0))
    with pytest.raises(SchemaError, match="before mask"):
        radiance(mask(make_scene(dn)))


def test_mask_takes_for_border_only_what_is_empty_in_all_bands(dn):
    # Bands without a positive gain do not count: whatever they hold.
    dn[:3, 5, 5] = 0
    with dask.config.set(scheduler=never_compute):
        out = mask(make_scene(dn, crs="EPSG:32633"))
    expected = np.ones((70, 8), bool)
    expected[:, 0] = False
    expected[5, 5] = False
    np.testing.assert_array_equal(out.valid, expected)
    assert not out.dead.any()
    assert out.attrs["steps"][-1]["bands_judged"] == 3


def test_mask_counts_no_uncalibrated_band():
    dn = np.zeros((3, 64, 2), "int16")
    dn[0] = 7  # band 1 is not calibrated, whatever is in it
    scene = make_scene(dn, band=np.array([1, 20, 100]), gain=np.ones(3), crs="EPSG:32633")
    assert not mask(scene).valid.any()
    with pytest.raises(SchemaError, match="no calibrated band"):
        mask(make_scene(dn[:1], band=np.array([1]), gain=np.ones(1)))


def test_mask_works_on_uint16(dn):
    out = mask(make_scene((dn.astype("uint16") * 2), crs="EPSG:32633"))
    np.testing.assert_array_equal(out.valid, ~(dn[:3] == 0).all(0))


def test_mask_takes_dead_samples_from_flags(dn):
    flags = np.zeros(dn.shape, "u1")
    for band, code in enumerate((1, 2, 3)):
        flags[band, :, band + 1] = code
    flags[2, 7, 7] = 4
    flags[3, :, 5] = 2  # in a band that does not count
    dn[0, 9, 6] = -32767
    out = mask(make_scene(dn, flags=flags, fill=-32767), max_dead=0.4)
    expected = np.zeros(dn.shape, bool)
    expected[0, :, 1] = expected[1, :, 2] = expected[2, :, 3] = True
    expected[2, 7, 7] = expected[0, 9, 6] = True
    np.testing.assert_array_equal(out.dead, expected)
    assert out.valid[:, 1:].all()  # one dead band of three is within 0.4
    strict = mask(make_scene(dn, flags=flags, fill=-32767), max_dead=0.3)
    np.testing.assert_array_equal(strict.valid[:, 1:], ~expected.any(0)[:, 1:])


def test_mask_finds_empty_columns_in_sensor_geometry_alone(dn):
    dn[1, :, 4] = 0
    out = mask(make_scene(dn, rpc={"a": 1}), max_dead=1)
    expected = np.zeros(dn.shape, bool)
    expected[1, :64, 4] = True  # the last 6 rows are too few to judge
    np.testing.assert_array_equal(out.dead, expected)
    assert not mask(make_scene(dn, crs="EPSG:32633")).dead.any()


def test_empty_columns_are_not_dark_ground():
    empty = np.zeros((1, 64, 9), bool)
    empty[:, :, 2] = True  # dead
    empty[:, :, 8] = True  # dead, at the edge
    empty[:, :, 5:7] = True  # a lake two columns wide
    np.testing.assert_array_equal(np.flatnonzero(empty_columns(empty)[0, 0]), [2, 8])
    empty[:, 0, 2] = False
    assert 2 not in np.flatnonzero(empty_columns(empty)[0, 0])


def test_mask_puts_nan_into_radiance_where_nothing_was_measured(dn):
    flags = np.zeros(dn.shape, "u1")
    flags[0, :, 3] = 2
    scene = radiance(make_scene(dn, flags=flags, fill=-32767))
    out = mask(scene, max_dead=0.5).radiance
    expected = scene.radiance.values.copy()
    expected[:, :, 0] = np.nan
    expected[0, :, 3] = np.nan
    np.testing.assert_array_equal(out, expected)
    assert (out.dims, out.dtype, out.units) == (
        scene.radiance.dims,
        "float32",
        scene.radiance.units,
    )


def test_reflectance_matches_the_formula(dn):
    scene = radiance(make_scene(dn))
    with dask.config.set(scheduler=never_compute):
        out = reflectance(scene).reflectance
    # By hand: band 1 at 450 nm; sin(30 deg) = 1/2; 24 July 2013 is day 205: d = 1.0157 au
    nm, sun = solar_irradiance()
    near = abs(nm - 450) < 60
    weight = 0.5 ** ((2 * (nm[near] - 450) / 11) ** 2)  # half at half the width
    irradiance = (weight * sun[near]).sum() / weight.sum()
    distance = 1 - 0.01672 * np.cos(np.radians(0.9856 * (205 - 4)))
    expected = 2 * np.pi * scene.radiance[0].values * distance**2 / irradiance
    np.testing.assert_allclose(out[0], expected, rtol=2e-3)  # of the day-count formula
    assert (out.dtype, out.units) == ("float32", "1")
    assert np.isnan(out[3:]).all()


@pytest.mark.parametrize("elevation", [-5.0, 0.0, 91.0, np.nan])
def test_reflectance_rejects_an_impossible_sun(dn, elevation):
    with pytest.raises(SchemaError, match=f"got {elevation}"):
        reflectance(radiance(make_scene(dn, sun_elevation=elevation)))


def test_reflectance_rejects_a_scene_without_radiance(dn):
    with pytest.raises(SchemaError, match="needs the step radiance"):
        reflectance(make_scene(dn))


def test_band_irradiance_rejects_bands_outside_of_the_table():
    with pytest.raises(SchemaError, match=r"300\.\.2700 nm"):
        band_irradiance([2800.0], [10.0])


@pytest.mark.parametrize(
    ("day", "distance"),
    # Perihelion, aphelion and an equinox of 2020 as almanacs have them
    [("2020-01-05T07:48:00Z", 0.98324), ("2020-07-04T11:35:00Z", 1.01669),
     ("2020-03-20T03:50:00Z", 0.99596)],
)  # fmt: skip
def test_earth_sun_distance_is_the_almanacs(day, distance):
    assert earth_sun_distance(day) == pytest.approx(distance, abs=3e-4)


def test_normalize_records_and_leaves_the_pixels(dn):
    scene = make_scene(dn)
    out = normalize(scene, method="scale", scale=4000)
    assert out.attrs["scale"] == 4000
    assert out.dn is not None
    np.testing.assert_array_equal(out.dn, dn)
    assert normalize(scene, method="none").attrs["scale"] == 1
    for wrong in ({"method": "scale", "scale": 0}, {"method": "none", "scale": 2}):
        with pytest.raises(ValueError, match="scale must be positive"):
            normalize(scene, **wrong)
