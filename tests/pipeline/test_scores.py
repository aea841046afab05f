"""Masks of spectra whose nature is known: measured ones of the library, and made ones."""

import csv

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import yaml

from pipeline.recipe import load_recipe
from pipeline.sensors import SENSORS, TABLES, band_list
from pipeline.steps.bands import bands
from pipeline.steps.masks import mask
from pipeline.steps.radiance import radiance
from pipeline.steps.scores import scores
from storage.schema import SchemaError
from tests.pipeline.test_steps import never_compute

HYPERION = SENSORS["hyperion"]
SUN = 40.0
MASKS = ["cloud", "cirrus", "snow", "water", "shadow", "saturated"]


def library():
    """Reflectance of the calibrated bands (band) of each spectrum of the library."""
    lines = (TABLES / "usgs_splib07_subset.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    nm = [float(row["wavelength_nm"]) for row in rows]
    return {
        name: np.interp(HYPERION.wavelength, nm, [float(row[name]) for row in rows])
        for name in rows[0]
        if name != "wavelength_nm"
    }


def made(*points):
    """Reflectance by straight lines between (wavelength, reflectance)."""
    return np.interp(HYPERION.wavelength, *zip(*points, strict=True))


SPECTRA = library()
LOW_CLOUD = made((400, 0.6), (1000, 0.62), (1300, 0.55), (1620, 0.5), (2200, 0.35), (2500, 0.3))
# Shapes of measured snow: bright in the visible, nearly black beyond 1.5 um.
SNOW = made((400, 0.95), (700, 0.93), (900, 0.8), (1250, 0.5), (1450, 0.1), (1620, 0.08),
            (2000, 0.02), (2200, 0.04), (2500, 0.02))  # fmt: skip
AIR = 0.1 * (HYPERION.wavelength / 450) ** -4.08
"""What clear air adds to reflectance, as Rayleigh scattering does."""


def scene_of(*spectra, sensor=HYPERION, cirrus=0.001, **attrs):
    """A scene of one row per spectrum, as L1T: DN of reflectance under the sun at 40 deg."""
    toa = np.stack([np.asarray(one, float) for one in spectra])
    damp = abs(sensor.wavelength - 1380) < 60  # water vapour leaves nothing of the ground
    toa[:, damp] = np.broadcast_to(cirrus, len(toa))[:, None]
    distance = 1 + 0.0167 * np.sin(2 * np.pi * (205 - 93.5) / 365)
    per_unit = sensor.irradiance["tsis1"] * np.sin(np.radians(SUN)) / (np.pi * distance**2)
    gain = np.where(np.isnan(sensor.gain), 0.02, sensor.gain)
    dn = np.rint(toa * per_unit / gain).T[:, :, None] + np.zeros((1, 1, 2))
    per_band = {
        "wavelength": sensor.wavelength, "fwhm": sensor.fwhm, "gain": gain,
        "offset": np.zeros(len(gain)),
    }  # fmt: skip
    return xr.Dataset(
        {"dn": (("band", "y", "x"), da.from_array(dn.astype("int16"), chunks=(50, -1, 1)))},
        {"band": sensor.band, **{k: ("band", v) for k, v in per_band.items()}},
        {"sensor": sensor.name, "scene_id": "S", "nodata": 0, "sun_elevation": SUN, "steps": [],
         "acquired": "2013-07-24T09:41:20Z", "crs": "EPSG:32633", **attrs},
    )  # fmt: skip


def found(*spectra, **kwargs):
    """The names of the masks that hold, per spectrum."""
    out = scores(mask(scene_of(*spectra, **kwargs)))
    assert out.attrs["masks"] == MASKS
    held = {name: out[name].values.all(axis=1) for name in MASKS}
    return [{name for name in MASKS if held[name][i]} for i in range(len(spectra))]


LAND = ["spruce_needles", "rangeland_green", "golden_dry_grass", "lodgepole_pine_needles_dry",
        "illite_imt1", "antigorite", "chlorite"]  # fmt: skip


@pytest.mark.parametrize("air", [0, AIR])
@pytest.mark.parametrize("name", LAND)
def test_sunlit_land_is_none_of_them(name, air):
    assert found(SPECTRA[name] + air) == [set()]


@pytest.mark.parametrize("air", [0, AIR])
@pytest.mark.parametrize("name", ["coastal_seawater", "water_montmorillonite_0.5g_l"])
def test_water_is_water(name, air):
    assert found(SPECTRA[name] + air) == [{"water"}]


def test_shaded_ground_is_shadow():
    # Sky light alone: an eighth in the visible, less in the infrared
    sky = made((400, 0.2), (560, 0.12), (865, 0.1), (1610, 0.07), (2500, 0.05))
    shaded = [sky * SPECTRA[name] for name in ("golden_dry_grass", "rangeland_green")]
    # White clay under a blue sky is as blue as water: its shade must be lit by the ground around
    assert found(*shaded, 0.1 * SPECTRA["illite_imt1"]) == [{"shadow"}] * 3


def test_cloud_is_cloud_and_cirrus_where_it_is_high():
    assert found(LOW_CLOUD, LOW_CLOUD, cirrus=[0.004, 0.3]) == [{"cloud"}, {"cloud", "cirrus"}]


def test_thin_cirrus_is_no_cloud():
    assert found(SPECTRA["rangeland_green"] + 0.02, cirrus=0.02) == [{"cirrus"}]


def test_snow_is_snow_and_no_cloud():
    assert found(SNOW, 0.4 * SNOW) == [{"snow"}, {"snow"}]


def test_black_and_blinding_pixels_are_no_trouble():
    # No light at all but for one count of noise to either side; and brighter than the sensor
    dark, bright = np.full(242, 1e-4), 3 * LOW_CLOUD
    low = scene_of(dark, -dark, bright)
    out = scores(mask(low.assign(dn=low.dn.where(low.dn != 0, 1).astype("int16"))))
    assert not out.cloud[:2].any()
    assert not out.snow.any()
    assert not out.saturated.any()
    assert out.cloud[2].all()


def test_saturated_is_a_dn_at_the_ceiling_of_a_band_that_counts():
    scene = mask(scene_of(LOW_CLOUD, LOW_CLOUD, LOW_CLOUD))
    dn = scene.dn.values.copy()
    dn[30, 0, 1] = 32767
    dn[2, 1, :] = 32767  # band 3 is not calibrated
    out = scores(scene.assign(dn=(scene.dn.dims, da.from_array(dn))))
    np.testing.assert_array_equal(out.saturated, [[False, True], [False] * 2, [False] * 2])
    assert out.attrs["steps"][-1]["saturated_from"] == "dn"


def test_saturated_of_ahsi_is_its_12_bits():
    ahsi = SENSORS["ahsi"]
    scene = scene_of(np.full(330, 0.1), sensor=ahsi)
    dn = scene.dn.values.astype("uint16")
    dn[100, 0, 1] = 4095
    out = scores(mask(scene.assign(dn=(scene.dn.dims, da.from_array(dn)))))
    np.testing.assert_array_equal(out.saturated, [[False, True]])


def test_saturated_is_what_flags_say():
    scene = scene_of(LOW_CLOUD, LOW_CLOUD)
    flags = np.zeros(scene.dn.shape, "u1")
    flags[20, 0, 0], flags[21, 1, 0], flags[2, 1, 1] = 1, 2, 1
    scene = mask(
        scene.assign(flags=(scene.dn.dims, da.from_array(flags))).assign_attrs(fill=-32767)
    )
    out = scores(scene)
    np.testing.assert_array_equal(out.saturated, [[True, False], [False, False]])
    assert out.attrs["steps"][-1]["saturated_from"] == "flags"


def test_is_lazy_and_leaves_its_input():
    scene = mask(scene_of(LOW_CLOUD, SNOW))
    before = scene.copy()
    with dask.config.set(scheduler=never_compute):
        out = scores(scene)
    xr.testing.assert_identical(scene, before)
    assert scene.attrs["steps"] == before.attrs["steps"]
    for name in MASKS:
        assert (out[name].dims, out[name].dtype) == (("y", "x"), bool)
        assert out[name].chunks == scene.valid.chunks


def test_is_the_same_before_and_after_radiance():
    scene = scene_of(LOW_CLOUD, SNOW, SPECTRA["coastal_seawater"])
    one, two = scores(mask(scene)), scores(mask(radiance(scene)))
    for name in MASKS:
        np.testing.assert_array_equal(one[name], two[name])
    assert "radiance" in two


def test_is_false_where_not_valid_or_dead():
    scene = mask(scene_of(LOW_CLOUD, LOW_CLOUD))
    dead = scene.dead.values.copy()
    dead[28:32, 1, 0] = True  # red
    valid = np.array([[True, False], [True, True]])
    scene = scene.assign(
        valid=(("y", "x"), da.from_array(valid)), dead=(scene.dead.dims, da.from_array(dead))
    )
    np.testing.assert_array_equal(scores(scene).cloud, [[True, False], [False, True]])


def test_vnir_alone_has_water_and_says_what_it_lacks():
    ahsi = SENSORS["ahsi"]
    scene = bands(scene_of(np.full(330, 0.2), sensor=ahsi), name="hyperglobal")
    out = scores(mask(scene))
    assert out.attrs["masks"] == ["water", "saturated"]
    unavailable = out.attrs["steps"][-1]["unavailable"]
    assert sorted(unavailable) == ["cirrus", "cloud", "shadow", "snow"]
    assert unavailable["snow"] == "no usable band within 15 nm of 1609 nm"
    assert not {"cloud", "cirrus", "shadow", "snow"} & set(out.data_vars)


def test_cirrus_wants_a_band_that_measures():
    # AHSI's bands at 1.38 um are not among the calibrated ones, and their gains may be negative
    out = scores(mask(scene_of(np.full(330, 0.2), sensor=SENSORS["ahsi"])))
    assert "1373 nm" in out.attrs["steps"][-1]["unavailable"]["cirrus"]
    scene = scene_of(LOW_CLOUD)
    near = abs(scene.wavelength - 1373) < 20
    out = scores(mask(scene.assign_coords(gain=scene.gain.where(~near, -0.01))))
    assert "cirrus" not in out
    assert "cloud" in out


def test_takes_the_kept_band_nearest():
    out = scores(mask(bands(scene_of(LOW_CLOUD), name="hyperglobal")))
    kept = np.array(band_list("hyperion", "hyperglobal").bands)
    nm = HYPERION.wavelength[kept - 1]
    chosen = out.attrs["steps"][-1]["bands"]
    assert chosen["red"] == kept[abs(nm - 655).argmin()]
    assert chosen["nir"] == kept[abs(nm - 865).argmin()]


def test_without_a_sun_only_saturation_is_known():
    out = scores(mask(scene_of(LOW_CLOUD, sun_elevation=np.nan)))
    assert out.attrs["masks"] == ["saturated"]
    assert out.attrs["steps"][-1]["unavailable"]["cloud"] == "sun_elevation is nan"


def test_surface_reflectance_is_taken_as_it_is():
    toa = scene_of(LOW_CLOUD, SNOW, SPECTRA["coastal_seawater"], sun_elevation=np.nan)
    dn = np.rint(10000 * np.stack([LOW_CLOUD, SNOW, SPECTRA["coastal_seawater"]])).T
    dn = np.repeat(dn[:, :, None], 2, axis=2).astype("int16")
    dn[200:, :, 0] = -32768  # bands that the supplier left empty
    scene = toa.assign(dn=(toa.dn.dims, da.from_array(dn))).assign_coords(gain=0 * toa.gain + 1e-4)
    scene = scene.assign_attrs(quantity="surface reflectance", nodata=-32768)
    out = scores(mask(scene))
    reason = out.attrs["steps"][-1]["unavailable"]
    assert reason == {"cirrus": "surface reflectance says nothing of the air"}
    np.testing.assert_array_equal(out.cloud, [[False, True], [False] * 2, [False] * 2])
    np.testing.assert_array_equal(out.snow.all("x"), [False, True, False])
    np.testing.assert_array_equal(out.water.all("x"), [False, False, True])


def test_thresholds_are_parameters_and_recorded():
    scene = mask(scene_of(LOW_CLOUD))
    out = scores(scene, cloud_hot=0.5)
    assert not out.cloud.any()
    assert out.attrs["steps"][-1]["cloud_hot"] == 0.5


def test_a_recipe_takes_it_with_its_defaults(tmp_path):
    recipe = {
        "name": "r",
        "steps": [{"radiance": None}, {"mask": None}, {"scores": {"cloud_hot": 0.1}},
                  {"surface": {"method": "dark_object"}}, {"tile": None}],
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    steps = load_recipe(tmp_path / "r.yaml").steps
    assert steps[2]["scores"]["cloud_hot"] == 0.1
    assert steps[2]["scores"]["cirrus"] == 0.01
    assert steps[3]["surface"]["solar"] == "tsis1"


def test_needs_mask_before_it():
    with pytest.raises(SchemaError, match="the step mask before it"):
        scores(scene_of(LOW_CLOUD))


def test_saturation_is_told_from_the_integers_as_delivered():
    scene = mask(scene_of(np.full(330, 0.1), sensor=SENSORS["ahsi"]))
    # Destriping moved a full sample below the ceiling, and one that was not full over it.
    delivered = scene.dn.copy(data=scene.dn.data.compute())
    after = delivered.copy(deep=True)
    delivered[9, 0, 0], after[9, 0, 0] = 4095, 4010
    delivered[9, 0, 1], after[9, 0, 1] = 4000, 4100
    out = scores(scene.assign(dn=after, dn_delivered=delivered))
    np.testing.assert_array_equal(out.saturated, [[True, False]])
