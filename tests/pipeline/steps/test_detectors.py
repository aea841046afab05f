import dask
import numpy as np
import pytest

from pipeline.readers import open_scene
from pipeline.steps.detectors import detectors
from pipeline.steps.masks import mask
from pipeline.synth import write_products
from tests.pipeline.raw_products import SHARED
from tests.pipeline.scenes import scene_of
from tests.pipeline.steps.test_destripe import never_compute

L1R = SHARED / "EO1H1930242013205110KF_1R.tgz"


@pytest.fixture
def dn():
    return np.random.default_rng(0).integers(100, 4000, (6, 130, 20)).astype("int16")


def test_finds_dead_and_stuck_detectors_by_reason(dn):
    flags = np.zeros(dn.shape, "u1")
    flags[0, :, 3] = 2
    flags[1, 40:, 4] = 3  # flat in most rows
    flags[1, :60, 5] = 2  # in fewer than half of them
    dn[2, :, 6] = 0
    dn[3, :, 7] = 1234
    dn[4, :, 8:10] = 0  # two side by side
    dn[4, :, 12:15] = 0  # a lake
    dn[5, :, 19] = 0  # at the edge
    out = detectors(scene_of(dn, flags=flags))
    expected = np.zeros((6, 20), bool)
    for place in ((0, 3), (1, 4), (2, 6), (3, 7), (4, 8), (4, 9), (5, 19)):
        expected[place] = True
    np.testing.assert_array_equal(out.bad_detector, expected)
    assert out.bad_detector.dims == ("band", "x")
    assert out.attrs["steps"][-1]["found"] == {
        "VNIR": {"flagged": 2, "empty": 1, "stuck": 0},
        "SWIR": {"flagged": 0, "empty": 3, "stuck": 1},
    }
    np.testing.assert_array_equal(out.dn, dn)


def test_a_band_that_is_not_calibrated_has_none(dn):
    dn[2] = 0
    flags = np.zeros(dn.shape, "u1")
    flags[2, :, 5] = 2
    assert not detectors(scene_of(dn, flags=flags)).bad_detector.any()


def test_rows_without_data_are_not_judged(dn):
    dn[:, :40] = 0
    dn[:, -3:] = -32767
    dn[1, 40:-3, 8] = 0
    dn[3, 40:-3, 9] = 77
    out = detectors(scene_of(dn))
    assert np.argwhere(out.bad_detector.values).tolist() == [[1, 8], [3, 9]]


def test_a_dark_band_that_bottoms_out_is_not_stuck(dn):
    dn[2] = 1
    dn[2, ::7, ::2] = 20
    dn[3] = np.random.default_rng(1).integers(-2, 3, dn[3].shape)
    assert not detectors(scene_of(dn)).bad_detector.any()


def test_few_rows_are_too_few():
    dn = np.full((2, 20, 8), 5, "int16")
    assert not detectors(scene_of(dn)).bad_detector.any()


def test_map_products_pass_and_the_chunks_do_not_matter(dn):
    dn[2, :, 6] = 0
    out = detectors(scene_of(dn, crs="EPSG:32633"))
    assert "bad_detector" not in out
    assert out.attrs["steps"][-1]["applied"] is False
    one, other = (detectors(scene_of(dn, chunk=chunk)) for chunk in (64, 130))
    np.testing.assert_array_equal(one.bad_detector, other.bad_detector)


def test_mask_counts_bad_detectors_as_dead(dn):
    dn[2, :, 6] = 0
    dn[3, :, 7] = 1234
    scene = detectors(scene_of(dn))
    with dask.config.set(scheduler=never_compute):
        out = mask(scene, max_dead=0.5)
    expected = np.zeros(dn.shape, bool)
    expected[2, :, 6] = expected[3, :, 7] = True
    np.testing.assert_array_equal(out.dead, expected)
    assert out.dead.dims == ("band", "y", "x")
    assert out.attrs["steps"][-1]["dead_from"] == "empty columns and bad_detector"


def test_finds_the_dead_detectors_of_a_synthetic_product(tmp_path):
    (product,) = write_products(tmp_path, scenes=1, seed=3, first=2)
    out = detectors(open_scene(tmp_path / product["path"]))
    truth = np.load(next((tmp_path / "truth").glob("*.npz")))["dead"]
    found = {(int(b) + 1, int(x)) for b, x in np.argwhere(out.bad_detector.values)}
    assert {tuple(pair) for pair in truth.tolist()} < found
    assert len(found) == len(truth) + 1  # and the one that is stuck
    without = detectors(open_scene(tmp_path / product["path"]).drop_vars("flags"))
    np.testing.assert_array_equal(without.bad_detector, out.bad_detector)


@pytest.mark.skipif(not L1R.exists(), reason=f"no {L1R}")
def test_finds_those_of_the_real_product_with_and_without_flags():
    scene = open_scene(L1R)
    out = detectors(scene).bad_detector
    dead = (scene.flags.values == 2).all(axis=1) & (scene.dn.values != 0).any(axis=(1, 2))[:, None]
    np.testing.assert_array_equal(out, dead)
    np.testing.assert_array_equal(detectors(scene.drop_vars("flags")).bad_detector, dead)
