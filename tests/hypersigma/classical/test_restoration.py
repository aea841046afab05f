import numpy as np
import pytest

from hypersigma.classical.restoration import bicubic, low_rank, residual_noise
from hypersigma.metrics.restoration import psnr


def scene(seed=0, *, rank=4, bands=40, side=48):
    rng = np.random.default_rng(seed)
    maps = rng.random((rank, side, side))
    return np.tensordot(rng.random((bands, rank)), maps, 1)


def test_noise_outside_the_signal_is_taken_away():
    clean = scene()
    rng = np.random.default_rng(1)
    level = rng.uniform(0.02, 0.2, (40, 1, 1))
    noisy = clean + level * rng.normal(size=clean.shape)
    found = low_rank(noisy)
    assert psnr(found, clean, peak=1) > psnr(noisy, clean, peak=1) + 6
    assert np.linalg.matrix_rank(found.reshape(40, -1), tol=1e-6) == 4


def test_a_rank_may_be_given():
    found = low_rank(scene(), rank=2)
    assert np.linalg.matrix_rank(found.reshape(40, -1), tol=1e-6) == 2


def test_noise_is_what_the_other_bands_do_not_tell():
    rng = np.random.default_rng(3)
    clean = scene().reshape(40, -1)
    noise = 0.05 * rng.normal(size=clean.shape)
    found = residual_noise(clean + noise)
    assert np.corrcoef(found[7], noise[7])[0, 1] > 0.9
    assert found.std() == pytest.approx(0.05, rel=0.1)
    others = np.delete(clean + noise, 7, 0)
    weights = np.linalg.lstsq(others.T, (clean + noise)[7], rcond=None)[0]
    np.testing.assert_allclose(found[7], (clean + noise)[7] - weights @ others, atol=2e-3)


def test_a_plane_stays_a_plane_when_it_is_enlarged():
    y, x = np.indices((12, 14))
    large = bicubic((2.0 * x + y)[None], 4)
    assert large.shape == (1, 48, 56)
    inside = large[0, 8:-8, 8:-8]
    np.testing.assert_allclose(np.diff(inside, axis=1), 0.5, atol=1e-9)
    np.testing.assert_allclose(np.diff(inside, axis=0), 0.25, atol=1e-9)
    np.testing.assert_allclose(bicubic(np.ones((2, 5, 5)), 2), 1)


def test_what_is_not_finite_is_refused():
    cube = scene()
    cube[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="expected a finite image"):
        low_rank(cube)
