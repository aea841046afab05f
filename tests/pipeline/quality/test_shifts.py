import numpy as np
import pytest

from pipeline.quality.shifts import Peak, agreed_shift, correlation, phase_shift
from tests.pipeline.scenes import smooth


def pair(down, right, *, size=128, seed=0, noise=0.0):
    """Two images of one ground, the second moved by a fraction of pixels in Fourier space."""
    rng = np.random.default_rng(seed)
    image = smooth(1, size, size, seed)[0]
    ramp = np.exp(-2j * np.pi * (np.fft.fftfreq(size)[:, None] * down
                                 + np.fft.rfftfreq(size) * right))  # fmt: skip
    moved = np.fft.irfft2(np.fft.rfft2(image) * ramp, s=image.shape)
    return tuple(part + noise * rng.standard_normal(image.shape) for part in (image, moved))


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -1), (0.5, 1), (-0.4, 0.3), (3, -2)])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_finds_known_shifts(shift, noise):
    peak = phase_shift(*pair(*shift, noise=noise))
    np.testing.assert_allclose((peak.y, peak.x), shift, atol=0.12)
    assert peak.height > 15


def test_stripes_of_detectors_do_not_hold_the_images_in_place():
    first, second = (10 + image for image in pair(1, 1, noise=0.02))
    rng = np.random.default_rng(9)
    first, second = (im * (1 + 0.1 * rng.standard_normal(128)) for im in (first, second))
    peak = phase_shift(first, second)
    np.testing.assert_allclose((peak.y, peak.x), (1, 1), atol=0.15)


def test_missing_samples_are_left_out():
    first, second = pair(1, 0, noise=0.02)
    second[:, 40] = np.nan
    first[60:64] = np.nan
    peak = phase_shift(first, second)
    np.testing.assert_allclose((peak.y, peak.x), (1, 0), atol=0.15)


def test_noise_alone_makes_no_high_peak():
    rng = np.random.default_rng(3)
    heights = [phase_shift(*rng.standard_normal((2, 128, 128))).height for _ in range(50)]
    assert max(heights) < 7
    assert phase_shift(np.ones((64, 64)), np.ones((64, 64))).height < 8
    assert phase_shift(np.full((64, 64), np.nan), np.ones((64, 64))).height < 8


def test_agreement_needs_two_and_half():
    good, odd, low = Peak(1, 0.1, 20), Peak(-5, 3, 20), Peak(4, 4, 3)
    assert agreed_shift([good, good, odd], 8).significant
    assert agreed_shift([good, good, odd], 8).y == 1
    assert not agreed_shift([good], 8).significant
    assert not agreed_shift([good, good, low, low, low], 8).significant
    none = agreed_shift([low, low], 8)
    assert not none.significant
    assert np.isnan(none.y)


def test_correlation_is_one_at_the_right_shift():
    image = smooth(1, 64, 64, 4)[0]
    moved = np.roll(image, (2, -1), (0, 1))
    assert correlation(image, moved, (2, -1)) == pytest.approx(1)
    assert correlation(image, moved, (0, 0)) < 0.95
