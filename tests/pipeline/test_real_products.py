"""Against the real products, if they are there: every stored integer is the product's own."""

import tarfile
import tempfile
import zipfile

import numpy as np
import pytest
from pyhdf.SD import SD
from rasterio.io import MemoryFile

from pipeline.inspect import inspect_scene
from pipeline.readers import find_scenes, open_scene
from pipeline.recipe import apply, load_recipe
from pipeline.split import SplitConfig
from storage.scenes import kept_tiles
from tests.pipeline.raw_products import SHARED

PRODUCTS = {
    "l1t": ("EO1H1930242013205110KF_1T.ZIP", 242, 175, (58.317, 151.208)),
    "l1r": ("EO1H1930242013205110KF_1R.tgz", 242, 175, (58.317, 151.208)),
    "ahsi": ("GF5B_AHSI_E13.0_N52.4_20231031_011422_L10000412729.tar.gz", 330, 150,
             (90 - 51.83, 168.2)),
}  # fmt: skip
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real products at {SHARED}")


def delivered(family, path):
    """The product's DN (band, y, x), read with the archive modules alone."""
    if family == "l1t":
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if "_B" in n.rpartition("/")[2])
            return np.stack([image(archive.read(n))[0] for n in names])
    with tarfile.open(path) as archive:
        if family == "ahsi":
            stems = [
                next(n for n in archive.getnames() if n.endswith(f"_{stem}.tif"))
                for stem in ("VN", "SW")
            ]
            return np.concatenate([image(archive.extractfile(n).read()) for n in stems])
        name = next(n for n in archive.getnames() if n.endswith(".L1R"))
        with tempfile.NamedTemporaryFile(suffix=".L1R") as file:
            file.write(archive.extractfile(name).read())
            file.flush()
            hdf = SD(file.name)
            values = hdf.select(next(iter(hdf.datasets()))).get()
            hdf.end()
            return values.transpose(1, 0, 2)


def image(content):
    with MemoryFile(content) as file, file.open() as source:
        return source.read()


def test_finds_the_three():
    assert [p.name for p in find_scenes(SHARED)] == sorted(name for name, *_ in PRODUCTS.values())
    ids = {open_scene(path).attrs["scene_id"] for path in find_scenes(SHARED)}
    assert len(ids) == 3


@pytest.mark.parametrize("family", PRODUCTS)
def test_inspect_has_the_metadatas_numbers(family):
    name, bands, _, sun = PRODUCTS[family]
    info = inspect_scene(SHARED / name)
    assert info["bands"] == bands
    assert (info["sun_elevation"], info["sun_azimuth"]) == pytest.approx(sun, abs=1e-9)
    dn = delivered(family, SHARED / name)
    assert info["shape"] == list(dn.shape[1:])
    # In two columns of the L1R more than a tenth of the detectors, 22 of 198, are dead.
    dead = 2 / 256 if family == "l1r" else 0
    assert info["valid_area"]["fraction"] == pytest.approx((dn != 0).any(0).mean() - dead)


@pytest.mark.parametrize("family", PRODUCTS)
def test_reference_tiles_are_the_products_dn(family):
    name, _, kept, _ = PRODUCTS[family]
    scene = open_scene(SHARED / name)
    dn = delivered(family, SHARED / name)
    np.testing.assert_array_equal(scene.dn.values, dn)
    tiles = kept_tiles(apply(load_recipe("reference"), scene, SplitConfig(block_km=500)))
    assert tiles.sizes["band"] == kept
    assert tiles.sizes["tile"] >= 9
    wanted = tiles.band.values - 1
    for values, row, col in zip(tiles.tiles.values, tiles.row, tiles.col, strict=True):
        window = dn[wanted, int(row) : int(row) + 64, int(col) : int(col) + 64]
        np.testing.assert_array_equal(values, window)


@pytest.mark.parametrize("family", PRODUCTS)
def test_reflectance_is_plausible(family):
    scene = open_scene(SHARED / PRODUCTS[family][0])
    tiles = kept_tiles(apply(load_recipe("reflectance"), scene, SplitConfig(block_km=500)))
    values = tiles.tiles.values
    assert np.isfinite(values[:, :, tiles.valid.values.all(0)]).mean() > 0.99
    assert np.nanmin(values) > -0.05
    assert 0.02 < np.nanmedian(values) < 0.4
    assert np.nanmax(values) < 1.5
