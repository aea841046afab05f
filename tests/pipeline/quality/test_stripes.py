import numpy as np
import pytest

from pipeline.quality.stripes import stripe_index
from tests.pipeline.scenes import gains, ground, noisy


def index(values):
    return stripe_index(values, np.ones(values.shape[1:], bool))


@pytest.mark.parametrize("texture", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("spread", [0.004, 0.03])
def test_is_the_spread_of_known_gains(texture, spread):
    light = ground(texture=texture)
    striped = light * gains(60, 128, spread)[:, None]
    np.testing.assert_allclose(np.median(index(noisy(striped))), spread, rtol=0.15)


@pytest.mark.parametrize("texture", [0.0, 0.02, 0.2])
def test_without_stripes_is_near_the_noise(texture):
    floor = 0.003 / np.sqrt(192)
    found = np.median(index(noisy(ground(texture=texture))))
    assert 0.5 * floor < found < 3 * floor


def test_does_not_change_with_the_gain():
    values = noisy(ground(20) * gains(20, 128, 0.01)[:, None])
    scales = np.geomspace(1e-3, 1e3, 20)[:, None, None]
    np.testing.assert_allclose(index(values * scales), index(values), rtol=1e-6)


@pytest.mark.parametrize("bands", [1, 2])
def test_sees_stripes_of_a_single_band_on_even_ground(bands):
    values = ground(bands, texture=0) * gains(bands, 128, 0.01)[:, None]
    np.testing.assert_allclose(index(values), 0.01, rtol=0.25)


def test_sees_stripes_that_all_bands_share_on_even_ground():
    values = noisy(ground(texture=0) * gains(1, 128, 0.01)[:, None])
    np.testing.assert_allclose(np.median(index(values)), 0.01, rtol=0.15)


def test_a_band_of_nan_is_nan_and_spreads_into_no_other():
    values = noisy(ground(20) * gains(20, 128, 0.01)[:, None])
    spoilt = values.copy()
    spoilt[7] = np.nan
    spoilt[12, 5, 5] = np.nan
    found = index(spoilt)
    assert np.flatnonzero(np.isnan(found)).tolist() == [7]
    np.testing.assert_allclose(np.delete(found, 7), 0.01, rtol=0.3)


def test_pixels_that_are_not_valid_do_not_count():
    values = noisy(ground(20) * gains(20, 128, 0.01)[:, None])
    valid = np.ones((192, 128), bool)
    valid[:30] = False
    valid[:, 50] = False
    spoilt = np.where(valid, values, 1e5)
    np.testing.assert_array_equal(stripe_index(spoilt, valid), stripe_index(values, valid))
    assert np.isnan(stripe_index(values, np.zeros_like(valid))).all()


def test_zeros_and_slivers_are_nan():
    assert np.isnan(index(np.zeros((3, 64, 64), "int16"))).all()
    assert np.isnan(index(np.ones((3, 64, 7)))).all()
    assert np.isnan(index(np.ones((3, 7, 64)))).all()
    assert index(np.ones((0, 64, 64))).shape == (0,)
