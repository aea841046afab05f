import dask
import numpy as np
import pytest

from pipeline.readers import open_scene
from pipeline.steps.radiance import radiance
from pipeline.steps.smile import smile
from storage.schema import SchemaError
from tests.pipeline.raw_products import write_l1r
from tests.pipeline.scenes import scene_of
from tests.pipeline.steps.test_destripe import never_compute


def bent(edge=1.3, *, bands=20, cols=32):
    """A scene whose light is a parabola in wavelength, seen by columns of shifted wavelength."""
    dn = np.ones((bands, 64, cols), "int16")
    scene = scene_of(dn)
    columns = scene.wavelength.values[:, None] + edge * np.linspace(-1, 1, cols) ** 2
    scene = scene.assign(wavelength_column=(("band", "x"), columns.astype("f4")))
    nm = scene.wavelength_column.values.astype("f8")
    values = np.broadcast_to(light(nm)[:, None], dn.shape).astype("f4")
    values *= np.linspace(0.5, 1, 64, dtype="f4")[:, None]
    data = scene.dn.astype("f4").copy(data=values).chunk(band=7, y=32, x=16)
    return scene.assign(radiance=data.assign_attrs(units="W m-2 sr-1 um-1"))


def light(nm):
    return 100 + 0.2 * (nm - 850) + 1e-4 * (nm - 850) ** 2


def test_reports_the_largest_deviation_of_each_detector():
    out = smile(bent())
    step = out.attrs["steps"][-1]
    assert step["applied"] is False
    for detector in ("VNIR", "SWIR"):
        np.testing.assert_allclose(step["effect"][detector]["max_nm"], [1.3, 1.3], atol=1e-4)
    np.testing.assert_array_equal(out.radiance, bent().radiance)


@pytest.mark.parametrize("edge", [1.3, -1.3, 4.0])
def test_a_known_smile_is_taken_out(edge):
    scene = bent(edge)
    with dask.config.set(scheduler=never_compute):
        out = smile(scene, resample=True)
    expected = light(scene.wavelength.values)[:, None, None] * np.linspace(0.5, 1, 64)[:, None]
    expected = np.broadcast_to(expected, out.radiance.shape)
    # A straight line through a parabola of 1e-4 is off by 1e-4 (nm - a)(b - nm); at the ends of a
    # detector by as much beyond: below 1e-4 * 4 * 14.
    assert np.abs(out.radiance - expected).max() < 1e-4 * abs(edge) * (10 + abs(edge)) + 1e-4
    before = np.abs(scene.radiance - expected).max()
    assert np.abs(out.radiance - expected).max() < before / 50
    assert (out.radiance.dtype, out.radiance.units) == ("float32", "W m-2 sr-1 um-1")
    assert out.radiance.dims == ("band", "y", "x")
    np.testing.assert_array_equal(out.dn, scene.dn)
    np.testing.assert_array_equal(out.band, scene.band)
    assert all(e["max_nm"][1] < 1e-4 for e in out.attrs["steps"][-1]["effect"].values())


def test_without_a_smile_nothing_changes_and_nan_does_not_spread():
    scene = bent(0.0)
    spoilt = scene.assign(radiance=scene.radiance.where(scene.radiance.band != scene.band[5]))
    out = smile(spoilt, resample=True)
    np.testing.assert_array_equal(out.radiance, spoilt.radiance)


def test_nan_makes_nan_of_what_needs_it_alone():
    scene = bent(1.0)
    spoilt = scene.assign(radiance=scene.radiance.where(scene.radiance.band != scene.band[5]))
    out = smile(spoilt, resample=True).radiance
    # Columns see longer wavelengths, so that the band before is the other end of the line.
    assert np.isnan(out.isel(band=[5, 6], x=0)).all()
    assert np.isfinite(np.delete(out.values, [5, 6], axis=0)).all()


def test_integers_are_refused_in_words():
    scene = bent().drop_vars("radiance")
    with pytest.raises(SchemaError, match="put the step radiance before it"):
        smile(scene, resample=True)
    assert smile(scene).attrs["steps"][-1]["applied"] is False
    assert "radiance" in smile(radiance(scene), resample=True)


def test_says_why_it_did_not_look():
    plain = scene_of(np.ones((4, 64, 8), "int16"))
    assert "no wavelengths per column" in smile(plain).attrs["steps"][-1]["why"]
    mapped = bent().assign_attrs(crs="EPSG:32633")
    assert "map geometry" in smile(mapped, resample=True).attrs["steps"][-1]["why"]
    with pytest.raises(SchemaError, match="two or more bands"):
        smile(bent().isel(band=[0, 10, 11]), resample=True)


def test_the_l1r_reader_gives_the_wavelength_of_each_column(tmp_path):
    scene = open_scene(write_l1r(tmp_path / "EO1H"))
    assert scene.wavelength_column.dims == scene.fwhm_column.dims == ("band", "x")
    assert scene.wavelength_column.dtype == scene.fwhm_column.dtype == "float32"
    np.testing.assert_allclose(scene.wavelength_column[3], 424 + np.linspace(-1, 1, 80), rtol=1e-6)
    np.testing.assert_allclose(scene.wavelength_column.mean("x"), scene.wavelength, rtol=1e-6)
    effect = smile(scene).attrs["steps"][-1]["effect"]
    assert effect["SWIR"]["max_nm"][0] == pytest.approx(1, abs=1e-3)
