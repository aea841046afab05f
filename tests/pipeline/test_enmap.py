import re
import shutil
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio

from pipeline.inspect import inspect_scene
from pipeline.readers import find_scenes, open_scene
from pipeline.steps.bands import bands
from pipeline.steps.masks import mask
from pipeline.steps.product_reflectance import product_reflectance
from pipeline.steps.radiance import radiance
from pipeline.steps.reflectance import reflectance
from storage.schema import SCENE_ATTRS, SceneError, SchemaError
from tests.pipeline import raw_products as raw

PAGE = Path(__file__).parents[2] / "docs/add-a-sensor.md"
BLOCK = re.compile(r"^```python file=make_product.py\n(.*?)^```", re.MULTILINE | re.DOTALL)


def never_compute(*args, **kwargs):
    raise AssertionError("computed a dask graph while building it")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the product that the page's script writes."""
    folder = tmp_path_factory.mktemp("enmap")
    (script,) = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
    return next((folder / "raw").iterdir())


@pytest.fixture
def product(made, tmp_path):
    return shutil.copytree(made, tmp_path / made.name)


def written(folder):
    with rasterio.open(next(folder.glob("*.TIF"))) as file:
        return file.read()


def rejected(path, match):
    with pytest.raises(SceneError, match=match):
        open_scene(path)


def test_the_scene_has_the_products_integers_and_metadata(made):
    with dask.config.set(scheduler=never_compute):
        scene = open_scene(made)
    dn = written(made)
    assert scene.dn.dtype == "int16"
    np.testing.assert_array_equal(scene.dn.values, dn)
    assert set(SCENE_ATTRS) <= set(scene.attrs)
    attrs = scene.attrs
    assert (attrs["sensor"], attrs["platform"], attrs["level"]) == ("enmap", "EnMAP", "L2A")
    assert attrs["scene_id"] == made.name
    assert attrs["acquired"] == "2022-07-24T10:45:26.123456Z"
    angles = [attrs[key] for key in ("sun_elevation", "sun_azimuth", "view_zenith")]
    assert angles == [56.5, 152.25, 8.5]
    assert (attrs["nodata"], attrs["quantity"]) == (-32768, "surface reflectance")
    assert (attrs["crs"], attrs["transform"][:3]) == ("EPSG:32633", [30, 0, 362175])
    np.testing.assert_allclose(scene.wavelength, 418.4 + 9.1 * np.arange(224), atol=0.006)
    np.testing.assert_array_equal(scene.fwhm, 8)
    np.testing.assert_array_equal(scene.gain, 0.0001)
    assert scene.detector.values.tolist() == ["VNIR"] * 91 + ["SWIR"] * 133


def test_folders_and_archives_of_it_are_found_and_read(product, tmp_path):
    assert find_scenes(tmp_path) == [product]
    dn = written(product)
    archives = [raw.zipped(product, tmp_path / "a.zip"), raw.tarred(product, tmp_path / "a.tgz")]
    for archive in archives:
        np.testing.assert_array_equal(open_scene(archive).dn[40:50, 3].values, dn[40:50, 3])


def test_reflectance_is_the_suppliers(made):
    with dask.config.set(scheduler=never_compute):
        out = product_reflectance(mask(bands(open_scene(made), name="calibrated"))).reflectance
    dn = written(made)
    expected = np.where(dn == -32768, np.nan, dn * 0.0001)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert (out.dtype, out.units) == ("float32", "1")
    assert inspect_scene(made)["valid_area"]["fraction"] == pytest.approx(128 / 130)


def test_there_is_no_radiance_of_it_and_no_way_around(made):
    scene = open_scene(made)
    with pytest.raises(SchemaError, match=r"got surface reflectance.*use the step product_refl"):
        radiance(scene)
    with pytest.raises(SchemaError, match="needs the step radiance"):
        reflectance(scene)
    with pytest.raises(SchemaError, match="needs the step mask before"):
        product_reflectance(scene)
    with pytest.raises(SchemaError, match="got radiance; use the steps radiance and reflectance"):
        product_reflectance(mask(scene.assign_attrs(quantity="radiance")))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("<level>L2A", "<level>L1C", "level L2A.*got L1C, int16"),
        ("2022-07-24T10", "24.7.2022", "a time like"),
        ("<center>56.5", "<center>96.5", "elevation in -90..90"),
        ('number="7"', 'number="8"', "bandID 1 to 224"),
        ("<GainOfBand>0.0001", "<GainOfBand>", "a value of GainOfBand"),
        ("-32768", "none", "a number as nodata"),
        ("</level_X>", "", "plain XML"),
        ("<level_X>", '<!DOCTYPE a [<!ENTITY b "b">]><level_X>', "plain XML"),
    ],
)
def test_rejects_metadata_that_does_not_fit(old, new, match, product):
    xml = next(product.glob("*.XML"))
    xml.write_text(xml.read_text().replace(old, new, 1))
    rejected(product, match)


def test_rejects_missing_files_and_other_images(product):
    image = next(product.glob("*.TIF"))
    raw.write_tif(image, np.ones((223, 3, 4), "int16"), crs="EPSG:32633")
    rejected(product, "bandID 1 to 223, as the image has, got 224")
    raw.write_tif(image, np.ones((224, 3, 4), "int16"))
    rejected(product, "a map projection, got L2A, int16, None")
    next(product.glob("*.XML")).unlink()
    rejected(product, r"a \*-METADATA.XML file")
