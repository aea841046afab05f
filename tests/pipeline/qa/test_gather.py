"""What a scene's page shows, against the build's own tiles and against sums by hand."""

import dask
import dask.array as da
import numpy as np
import pytest

from pipeline.qa.gather import gather
from pipeline.qa.strips import plan
from pipeline.readers import open_scene
from pipeline.recipe import apply, load_recipe
from pipeline.split import SplitConfig
from storage.scenes import kept_tiles
from tests.pipeline import raw_products as raw
from tests.pipeline.scenes import gains, ground, noisy, scene_of
from tests.scenes import small_scene

SPLIT = SplitConfig(block_km=50)
STEPS = """
name: mine
steps:
  - detectors: {}
  - destripe: {}
  - mask: {}
  - tile: {min_valid: 0.5}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(STEPS)
    return load_recipe(path)


def striped_scene(**attrs):
    """60 bands of 192 x 128 pixels with stripes, and a dead detector: band 3, column 40."""
    light = ground(rows=192, cols=128) * gains(60, 128, 0.01)[:, None, :]
    dn = np.rint(noisy(light)).astype("int16")
    dn[3, :, 40] = 0
    corners = {"ul": [13, 52.4], "ur": [13.04, 52.4], "ll": [13, 52.34], "lr": [13.04, 52.34]}
    return scene_of(
        dn, platform="EO-1", level="L1R", acquired="2013-07-24T09:41:20Z", corners=corners,
        sun_elevation=58.0, sun_azimuth=150.0, view_zenith=2.0, sources=[], **attrs
    )  # fmt: skip


def test_fates_are_those_of_the_build(tmp_path):
    dn = raw.hyperion_dn(200, 200)
    dn[:, :, :70] = 0
    scene = open_scene(raw.write_l1t(tmp_path / "p", dn))
    shipped = load_recipe("reflectance")
    split = SplitConfig(block_km=6, seed=3, fractions={"train": 0.5, "test": 0.5})
    found = gather(scene, shipped, split)
    tiles = kept_tiles(apply(shipped, scene, split))
    assert found.fates.counts == tiles.attrs["counts"]
    assert found.fates.counts["rejected"].keys() >= {"nodata", "split_border"}
    kept = found.fates.reason == ""
    np.testing.assert_array_equal(found.fates.row[kept], tiles.row)
    np.testing.assert_array_equal(found.fates.col[kept], tiles.col)
    np.testing.assert_allclose(found.fates.columns["snr"][kept], tiles.snr)
    assert list(found.steps) == tiles.attrs["steps"]
    assert found.masks.valid == pytest.approx(130 / 200)
    assert found.facts["valid_area"]["fraction"] == pytest.approx(130 / 200)
    assert found.detectors is None
    assert np.isnan(found.bands.stripes_before).all()


def test_a_striped_scene_in_sensor_geometry(recipe):
    scene = striped_scene()
    found = gather(scene, recipe, SPLIT)
    assert found.detectors.bad.sum() == 1
    assert found.detectors.bad[3, 40]
    assert found.detectors.dead[3, 40] == 1
    before, after = found.bands.stripes_before, found.bands.stripes_after
    # gains of 1 %, the spread of 128 of them
    assert np.median(before) == pytest.approx(0.01, rel=0.1)
    assert np.median(after) < np.median(before) / 3
    assert any("1 dead detectors" in problem for problem in found.facts["problems"])
    assert found.preview.step == 1
    np.testing.assert_array_equal(found.preview.images["red"].shape, (192, 128))
    # noise of 0.3 % was put in
    assert np.median(found.bands.snr) == pytest.approx(1 / 0.003, rel=0.1)
    assert found.bands.windows == 6


def test_each_chunk_is_read_once(recipe):
    scene = small_scene("S", rows=256, cols=192)
    read = []

    def count(block, block_info=None):
        read.append(block_info[0]["chunk-location"])
        return block

    dn = scene.dn.data.map_blocks(count, dtype="int16", meta=np.empty((0, 0, 0), "int16"))
    scene = scene.assign(dn=(("band", "y", "x"), dn))
    with dask.config.set(scheduler="synchronous"):
        found = gather(scene, recipe, SPLIT)
    assert sorted(read) == [(0, i, 0) for i in range(4)]
    assert found.fates.counts["in"] == 12


def test_pixels_have_the_stored_spectra(recipe):
    scene = striped_scene()
    found = gather(scene, recipe, SPLIT)
    assert 3 <= len(found.pixels.row) <= 6
    assert found.pixels.share.sum() == pytest.approx(1)
    destriped = apply(recipe, scene, SPLIT)
    assert destriped.sizes["tile"]
    for i, (row, col) in enumerate(zip(found.pixels.row, found.pixels.col, strict=True)):
        assert found.preview.images["red"][row, col] in found.pixels.values[i]
    again = gather(scene, recipe, SPLIT)
    np.testing.assert_array_equal(again.pixels.row, found.pixels.row)


def test_what_is_kept_of_a_large_scene_is_small():
    rows, cols = 3400, 1100
    scene = small_scene("S")
    scene = scene.drop_vars("dn").assign(
        dn=(("band", "y", "x"), da.zeros((12, rows, cols), chunks=(12, 64, cols), dtype="int16"))
    )
    wanted = plan(scene, "dn", [0, 1])
    assert -(-rows // wanted.step) <= 1000
    assert (rows // wanted.sample_step) * (cols // wanted.sample_step) <= 8000
    assert wanted.windows == 1


def test_a_scene_without_a_valid_pixel_has_no_numbers(tmp_path):
    scene = open_scene(raw.write_l1r(tmp_path / "p", np.zeros((242, 70, 80), "i2")))
    found = gather(scene, load_recipe("reference"), SPLIT)
    assert found.masks.valid == 0
    assert found.masks.unavailable["cloud"] == "the recipe reference has no step scores"
    assert len(found.pixels.row) == 0
    assert np.isnan(found.bands.snr).all()
    assert "no valid pixel" in found.facts["problems"]


def test_uncalibrated_bands_are_shaded_where_no_other_detector_sees(tmp_path):
    scene = open_scene(raw.write_l1t(tmp_path / "p", raw.hyperion_dn(70, 80)))
    shaded = gather(scene, load_recipe("reference"), SPLIT).shaded
    ranges = shaded["not calibrated"]
    assert len(ranges) == 2
    assert ranges[0][1] < 430
    assert ranges[1][0] > 2390
    assert "gain <= 0" not in shaded
