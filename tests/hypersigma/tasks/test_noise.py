import numpy as np
import pytest

from hypersigma.tasks import noise
from hypersigma.tasks.noise import NOISES, noisy

BANDS, HEIGHT, WIDTH = 60, 40, 80


def flat(dtype="f8"):
    return np.full((BANDS, HEIGHT, WIDTH), 0.4, dtype)


def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_a_function_of_the_seeds_alone(name):
    x = flat("f4")
    first = noisy(x, name, 1, 2)
    np.testing.assert_array_equal(first, noisy(x, name, 1, 2))
    assert (first != noisy(x, name, 1, 3)).mean() > 0.1
    assert first.dtype == np.float32
    np.testing.assert_array_equal(x, flat("f4"))  # what came in is as it was


def test_gaussian_noise_has_one_deviation():
    added = noise.add_gaussian(flat(), rng(), sigma=0.2) - 0.4
    np.testing.assert_allclose(added.std((1, 2)), 0.2, rtol=0.06)
    assert abs(added.mean()) < 0.002


def test_other_noise_has_a_deviation_of_each_band():
    deviation = (noise.add_non_iid(flat(), rng()) - 0.4).std((1, 2))
    away = np.abs(deviation[:, None] / np.array(noise.LEVELS) - 1)
    assert away.min(1).max() < 0.06
    assert set(away.argmin(1)) == {0, 1, 2, 3}


def test_impulses_are_black_and_white_in_a_third_of_the_bands():
    out = noise.add_impulses(flat(), rng())
    share = (out != 0.4).mean((1, 2))
    assert (share > 0).sum() == BANDS // 3
    hit = share[share > 0]
    assert np.abs(hit[:, None] - np.array(noise.IMPULSES)).min(1).max() < 0.04
    assert set(np.unique(out)) == {0.0, 0.4, 1.0}
    assert (out == 1).sum() == pytest.approx((out == 0).sum(), rel=0.05)


@pytest.mark.parametrize("add", [noise.add_stripes, noise.add_dead_lines])
def test_lines_are_whole_columns_of_a_third_of_the_bands(add):
    out = add(flat(), rng())
    assert (np.ptp(out, axis=1) == 0).all()  # alike along a column
    share = (out[:, 0] != 0.4).mean(1)
    assert (share > 0).sum() == BANDS // 3
    assert share[share > 0].min() >= 0.05
    assert share.max() <= 0.15
    changed = out[out != 0.4]
    if add is noise.add_dead_lines:
        assert (changed == 0).all()
    else:
        assert np.abs(changed - 0.4).max() <= 0.25
        assert len(np.unique(changed)) > 50


def test_a_mixture_has_all_of_them():
    out = noisy(flat(), "mixture", 0)
    assert (out == 1).any()  # impulses
    dead = (out == 0).mean(1) > 0.5
    assert dead.any()
    assert (out != 0.4).mean() > 0.99  # and noise everywhere


def test_small_images_and_wrong_ones():
    assert noisy(np.ones((3, 2, 2)), "mixture", 0).shape == (3, 2, 2)
    with pytest.raises(ValueError, match=r"one of gaussian, non_iid.* got 'fog'"):
        noisy(flat(), "fog", 0)
    bad = flat()
    bad[4] = np.nan
    with pytest.raises(ValueError, match="3200 values that are not; leave these bands out"):
        noisy(bad, "stripe", 0)
