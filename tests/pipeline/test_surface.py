import importlib.machinery
import importlib.util

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from configs import ConfigError
from pipeline.steps.reflectance import reflectance
from pipeline.steps.surface import METHODS, darkest, surface
from storage.schema import SceneError, SchemaError
from tests.pipeline.test_steps import never_compute

WAVELENGTH = np.array([450.0, 550.0, 660.0, 870.0, 1650.0, 2200.0])
HAZE = 0.09 * (WAVELENGTH / 450) ** -4
SHAPE = (6, 40, 50)


@pytest.fixture
def truth():
    """Reflectance at the surface: 150 dark pixels of 1 %, and all others brighter."""
    values = np.random.default_rng(0).uniform(0.02, 0.6, SHAPE)
    values[:, :3] = 0.01
    return values


def make_scene(toa, **attrs):
    """A scene after radiance and mask, of reflectance at the top of the atmosphere."""
    coords = {
        "band": np.arange(1, 7), "wavelength": ("band", WAVELENGTH),
        "fwhm": ("band", np.full(6, 10.0)), "gain": ("band", np.ones(6)),
    }  # fmt: skip
    base = {"sensor": "hyperion", "scene_id": "S", "sun_elevation": 50.0, "steps": [],
            "acquired": "2013-07-24T09:41:20Z"}  # fmt: skip
    dims = ("band", "y", "x")
    unit = xr.Dataset(
        {"radiance": (dims, da.ones(SHAPE, dtype="float32", chunks=(4, 16, 50))),
         "valid": (dims[1:], da.ones(SHAPE[1:], dtype=bool, chunks=(16, 50)))},
        coords, {**base, **attrs},
    )  # fmt: skip
    per_radiance = reflectance(unit).reflectance[:, 0, 0].values
    data = da.from_array((toa / per_radiance[:, None, None]).astype("float32"), chunks=(4, 16, 50))
    return unit.assign(radiance=(dims, data, {"units": "W m-2 sr-1 um-1"}))


def test_dark_object_takes_the_air_away(truth):
    out = surface(make_scene(truth + HAZE[:, None, None]))
    np.testing.assert_allclose(out.reflectance, truth, atol=1e-6)
    assert (out.reflectance.dtype, out.reflectance.units) == ("float32", "1")
    assert "radiance" not in out
    step = out.attrs["steps"][-1]
    np.testing.assert_allclose(step["dark_object_before"], HAZE + 0.01, atol=5e-5)
    np.testing.assert_allclose(step["dark_object_after"], 0.01)
    assert (step["method"], step["solar"]) == ("dark_object", "tsis1")


def test_nothing_is_added_where_the_ground_is_darker_than_the_object(truth):
    toa = truth.copy()
    toa[5, :3] = 0.002
    out = surface(make_scene(toa))
    np.testing.assert_allclose(out.reflectance[5], toa[5], atol=1e-6)
    assert out.attrs["steps"][-1]["dark_object_after"][5] == pytest.approx(0.002, abs=5e-5)


def test_the_least_values_are_noise(truth):
    toa = truth + HAZE[:, None, None]
    toa[:, 20, :40] = -0.05
    out = surface(make_scene(toa))
    np.testing.assert_allclose(out.reflectance[:, 21:], truth[:, 21:], atol=1e-6)


def test_nan_stays_nan_and_does_not_count(truth):
    toa = truth + HAZE[:, None, None]
    toa[:, :, 0] = np.nan
    toa[2] = np.nan  # no gain
    out = surface(make_scene(toa))
    np.testing.assert_array_equal(np.isnan(out.reflectance), np.isnan(toa))
    kept = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(out.reflectance[kept, :, 1:], truth[kept, :, 1:], atol=1e-6)
    assert out.attrs["steps"][-1]["dark_object_before"][2] is None


@pytest.mark.parametrize("number", [1, 7, 100])
def test_darkest_is_what_sorting_says(number):
    values = np.random.default_rng(1).standard_normal(SHAPE).astype("float32")
    values[0, 3:9] = np.nan
    found = darkest(da.from_array(values, chunks=(2, 7, 11)), number)
    ordered = np.sort(values.reshape(6, -1), axis=1)  # NaN come last
    np.testing.assert_array_equal(found, ordered[:, number - 1])


def test_reads_each_chunk_once_and_leaves_the_pixels_lazy(truth):
    scene = make_scene(truth)
    reads = []

    def count(block):
        reads.append(block.shape)
        return block

    counted = scene.radiance.data.map_blocks(count, dtype="float32", meta=np.empty((0, 0, 0), "f4"))
    counted_scene = scene.assign(radiance=(scene.radiance.dims, counted))
    out = surface(counted_scene)
    assert len(reads) == counted.npartitions == 6
    assert out.reflectance.chunks == counted.chunks
    out.reflectance[:1, :1, :1].compute()
    assert len(reads) == 7


def test_isofit_that_is_absent_says_what_to_do(truth, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"got no package.*pip install isofit.*dark_object"):
        surface(make_scene(truth), method="isofit")


def test_isofit_without_an_adapter_is_refused_too(truth, monkeypatch):
    spec = importlib.machinery.ModuleSpec("isofit", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ConfigError, match=r"expected an adapter.*METHODS.*dark_object"):
        surface(make_scene(truth), method="isofit")


def test_an_adapter_in_the_table_is_used(truth, monkeypatch):
    def adapter(scene, options):
        return 0.001 * scene.radiance, {"iterations": 3, "sun": options.solar}

    monkeypatch.setitem(METHODS, "isofit", adapter)
    scene = make_scene(truth)
    with dask.config.set(scheduler=never_compute):
        out = surface(scene, method="isofit", solar="e490")
    np.testing.assert_allclose(out.reflectance, 0.001 * scene.radiance)
    step = out.attrs["steps"][-1]
    assert (step["method"], step["iterations"], step["sun"]) == ("isofit", 3, "e490")


def test_rejects_what_it_cannot_use(truth):
    scene = make_scene(truth)
    with pytest.raises(SchemaError, match="radiance and mask"):
        surface(scene.drop_vars("valid"))
    with pytest.raises(SceneError, match="at least 3000 valid pixels"):
        surface(scene, dark_pixels=3000)
    with pytest.raises(ValueError, match="dark_pixels must be >= 1"):
        surface(scene, dark_pixels=0)
    with pytest.raises(SchemaError, match="sun_elevation"):
        surface(scene.assign_attrs(sun_elevation=-3.0))
