"""Noise of known size is found again, in flat and in textured scenes."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipeline.quality.noise import noise

BANDS = 60
SIGMA = 0.6 + 0.4 * np.sin(np.arange(BANDS) / 9)
ALL = np.ones((64, 64), bool)


def texture(rng, *, rough, contrast, shape=(64, 64), bands=BANDS):
    """Six smooth spectra in shares that vary over `rough` pixels (0: from pixel to pixel)."""
    spectra = gaussian_filter(rng.uniform(20, 200, (6, bands)), (0, 5))
    shares = gaussian_filter(rng.standard_normal((6, *shape)), (0, rough, rough))
    shares = np.exp(contrast * shares / shares.std(axis=(1, 2), keepdims=True))
    return np.einsum("kb,kyx->byx", spectra, shares / shares.sum(axis=0))


def gauss(rng, sigma=SIGMA, shape=(64, 64)):
    return np.asarray(sigma)[:, None, None] * rng.standard_normal((len(sigma), *shape))


@pytest.mark.parametrize("seed", range(3))
def test_finds_known_noise_on_a_flat_scene(seed):
    spectrum = 100 + 20 * np.sin(np.arange(BANDS) / 7)
    cube = spectrum[:, None, None] + gauss(np.random.default_rng(seed))
    signal, found = noise(cube, ALL)
    np.testing.assert_allclose(signal, cube.mean(axis=(1, 2)))
    assert np.median(found / SIGMA) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(found / SIGMA, 1, atol=0.15)


@pytest.mark.parametrize("contrast", [0.2, 1, 3])
@pytest.mark.parametrize("rough", [0, 1, 3, 8])
def test_finds_known_noise_in_texture(rough, contrast):
    rng = np.random.default_rng(7)
    scene = texture(rng, rough=rough, contrast=contrast)
    _, found = noise(scene + gauss(rng), ALL)
    assert np.median(found / SIGMA) == pytest.approx(1, abs=0.05)
    # The two ends have one band beside them only.
    ratio = found / SIGMA
    assert (ratio > 0.8).all()
    assert (ratio[1:-1] < 1.5).all()
    assert (ratio < 2).all()


@pytest.mark.parametrize("seed", range(5))
def test_noise_that_jumps_from_band_to_band_is_found_in_most(seed):
    rng = np.random.default_rng(seed)
    sigma = SIGMA * np.exp(0.7 * rng.standard_normal(BANDS))
    _, found = noise(texture(rng, rough=1, contrast=1) + gauss(rng, sigma), ALL)
    assert np.median(found / sigma) == pytest.approx(1, abs=0.05)
    # A quiet band between two loud ones has no help against its texture.
    assert np.mean(abs(np.log(found / sigma)) < np.log(1.25)) > 0.7


def test_texture_without_noise_is_hardly_any():
    scene = texture(np.random.default_rng(3), rough=3, contrast=1)
    _, found = noise(scene, ALL)
    assert np.median(found / scene.std(axis=(1, 2))) < 0.02


def test_a_bright_thing_is_no_noise():
    rng = np.random.default_rng(4)
    cube = 100 + gauss(rng)
    cube[:, 20:24, 30:37] += 500
    _, found = noise(cube, ALL)
    np.testing.assert_allclose(found / SIGMA, 1, atol=0.2)


def test_scales_with_the_unit_and_ignores_an_offset():
    rng = np.random.default_rng(5)
    cube = texture(rng, rough=1, contrast=1) + gauss(rng)
    signal, found = noise(cube, ALL)
    signal_3, found_3 = noise(3 * cube + 7, ALL)
    np.testing.assert_allclose(signal_3, 3 * signal + 7)
    np.testing.assert_allclose(found_3, 3 * found, rtol=1e-6)


def test_works_on_integers_as_delivered():
    rng = np.random.default_rng(6)
    cube = np.rint(1000 + 20 * gauss(rng)).astype("int16")
    signal, found = noise(cube, ALL)
    expected = noise(cube.astype("float64"), ALL)
    np.testing.assert_array_equal((signal, found), expected)
    np.testing.assert_allclose(found, 20 * SIGMA, rtol=0.15)


def test_what_is_not_valid_does_not_count():
    rng = np.random.default_rng(8)
    cube = 100 + gauss(rng)
    valid = rng.random((64, 64)) > 0.05
    spoilt = np.where(valid, cube, 1e9)
    signal, found = noise(spoilt, valid)
    np.testing.assert_allclose(signal, cube[:, valid].mean(axis=1))
    np.testing.assert_allclose(found / SIGMA, 1, atol=0.2)
    np.testing.assert_array_equal(noise(np.where(valid, cube, np.nan), ALL)[1], found)


def test_a_band_without_values_is_nan_and_spoils_no_other():
    rng = np.random.default_rng(9)
    cube = 100 + gauss(rng)
    cube[10] = np.nan
    cube[20, :, 5] = np.nan  # a dead detector
    cube[30, :40] = np.nan  # more than a quarter
    signal, found = noise(cube, ALL)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(signal)), [10])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found)), [10, 30])
    kept = np.isfinite(found)
    np.testing.assert_allclose(found[kept] / SIGMA[kept], 1, atol=0.2)


def test_too_little_is_nan():
    cube = 100 + gauss(np.random.default_rng(10))
    few = np.zeros((64, 64), bool)
    few[:3, :20] = True
    signal, found = noise(cube, few)
    assert np.isfinite(signal).all()
    assert np.isnan(found).all()
    assert np.isnan(noise(cube[:2], ALL)[1]).all()
    assert np.isnan(noise(cube[:, :15], ALL[:15])[1]).all()
    assert np.isnan(noise(cube, ~ALL)).all()


def test_constant_and_twin_bands_are_no_trouble():
    cube = 100 + gauss(np.random.default_rng(11))
    cube[5] = 7
    cube[8] = cube[7]
    _, found = noise(cube, ALL)
    assert np.isfinite(found).all()
    assert found[5] == pytest.approx(0, abs=1e-6)


def test_takes_any_shape():
    rng = np.random.default_rng(12)
    cube = 100 + gauss(rng, shape=(70, 99))
    _, found = noise(cube, np.ones((70, 99), bool))
    np.testing.assert_allclose(found / SIGMA, 1, atol=0.15)
