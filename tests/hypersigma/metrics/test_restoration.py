import math

import numpy as np
import pytest

from hypersigma.metrics import legacy, restoration_report
from hypersigma.metrics.restoration import SSIM_REACH, SSIM_SIGMA, ergas, psnr, sam, ssim


def images(seed=0, shape=(3, 20, 18)):
    rng = np.random.default_rng(seed)
    true = rng.random(shape)
    return true + 0.1 * rng.normal(size=shape), true


def slow_ssim(a, b, peak):
    """Window by window, with a 2-D weight."""
    reach = np.arange(-SSIM_REACH, SSIM_REACH + 1)
    weight = np.exp(-(reach[:, None] ** 2 + reach[None] ** 2) / 2 / SSIM_SIGMA**2)
    weight /= weight.sum()
    side, found = len(reach), []
    for row in range(a.shape[0] - side + 1):
        for column in range(a.shape[1] - side + 1):
            x, y = (t[row : row + side, column : column + side] for t in (a, b))
            mx, my = (weight * x).sum(), (weight * y).sum()
            vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
            both = (weight * (x - mx) * (y - my)).sum()
            c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
            found.append(
                (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
            )
    return np.mean(found)


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_ssim_is_that_of_the_windows(peak):
    found, true = images()
    assert ssim(found[0], true[0], peak=peak) == pytest.approx(slow_ssim(found[0], true[0], peak))


def test_known_errors():
    true = np.full((2, 11, 11), 0.5)
    found = true + np.array([0.1, 0.01])[:, None, None]
    assert psnr(found, true, peak=1) == pytest.approx((20 + 40) / 2)
    wanted = 100 / 4 * math.sqrt((0.1**2 + 0.01**2) / 0.25 / 2)
    assert ergas(found, true, ratio=4) == pytest.approx(wanted)
    angle = math.degrees(math.atan2(0.6, 0.51) - math.atan2(0.5, 0.5))
    assert sam(found, true) == pytest.approx(angle)
    report = restoration_report(found, true, peak=1, ratio=4)
    assert report["rmse"] == pytest.approx(math.sqrt((0.1**2 + 0.01**2) / 2))
    assert report["ergas"] == pytest.approx(wanted)


def test_the_image_itself():
    _, true = images()
    found = restoration_report(true, true, peak=1)
    assert found == {"psnr": np.inf, "ssim": pytest.approx(1), "sam": 0, "ergas": 0, "rmse": 0}


def test_pixels_without_a_spectrum_have_no_angle():
    found, true = images()
    true[:, 0, 0] = 0
    rest = sam(found[:, 1:], true[:, 1:]) * 19 * 18 + sam(found[:, :1, 1:], true[:, :1, 1:]) * 17
    assert sam(found, true) == pytest.approx(rest / (20 * 18 - 1))


def test_the_published_ssim_is_one_window():
    found, true = images()
    a, b = found[0], true[0]
    both = np.cov(a.ravel(), b.ravel(), bias=True)
    wanted = (2 * a.mean() * b.mean() + 1e-4) * (2 * both[0, 1] + 9e-4)
    wanted /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (both[0, 0] + both[1, 1] + 9e-4)
    assert legacy.ssim(a, b) == pytest.approx(wanted)


def test_what_does_not_fit_is_refused():
    found, true = images()
    with pytest.raises(ValueError, match=r"one shape, got \(3, 20, 17\)"):
        restoration_report(found[..., 1:], true, peak=1)
    with pytest.raises(ValueError, match="at least 11 x 11"):
        restoration_report(found[:, :9], true[:, :9], peak=1)
    found[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="expected finite values"):
        restoration_report(found, true, peak=1)
