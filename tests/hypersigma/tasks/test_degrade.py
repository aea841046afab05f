import math

import numpy as np
import pytest
import torch

from hypersigma.classical.restoration import bicubic
from hypersigma.tasks.degrade import degrade, enlarge, point_spread


@pytest.mark.parametrize("ratio", [2, 4, 8])
@pytest.mark.parametrize("mtf", [0.2, 0.3])
def test_a_wave_of_two_large_pixels_keeps_the_contrast_that_is_asked_for(ratio, mtf):
    kernel = point_spread(ratio, mtf=mtf).numpy()
    place = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    assert (kernel * np.cos(2 * np.pi * place / (2 * ratio))).sum() == pytest.approx(mtf, abs=0.01)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, kernel[::-1])


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_a_plane_stays_a_plane_and_in_its_place(ratio):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    plane = (2 * x + y).double().expand(2, 3, -1, -1)
    small = degrade(plane, ratio)
    assert small.shape == (2, 3, 64 // ratio, 96 // ratio)
    # A large pixel's centre is the mean place of the small ones that it covers.
    mean = plane.unflatten(3, (-1, ratio)).unflatten(2, (-1, ratio)).mean((3, 5))
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(small[inside], mean[inside])
    back = enlarge(small, ratio)
    inner = (..., slice(4 * ratio, -4 * ratio), slice(4 * ratio, -4 * ratio))
    torch.testing.assert_close(back[inner], plane[inner])


def test_a_point_is_spread_by_the_gaussian():
    image = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    image[0, 0, 33, 30] = 1
    small = degrade(image, 4, mtf=0.25)[0, 0]
    sigma = 4 / math.pi * math.sqrt(2 * math.log(4))
    centre = 4 * np.arange(16) + 1.5
    rows, columns = (
        np.exp(-0.5 * ((centre - at) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
        for at in (33, 30)
    )
    np.testing.assert_allclose(small.numpy(), np.outer(rows, columns), atol=3e-4)
    assert small.sum() * 16 == pytest.approx(1, abs=0.01)


def test_enlarging_is_the_classical_one():
    x = np.random.default_rng(0).random((3, 7, 9))
    np.testing.assert_allclose(enlarge(torch.from_numpy(x)[None], 4)[0].numpy(), bicubic(x, 4))


def test_what_cannot_be_degraded_is_refused():
    with pytest.raises(ValueError, match="ratio 8 does not divide an image of 100 x 96 px; cut it "
                       "to 96 x 96 px"):  # fmt: skip
        degrade(torch.zeros(1, 2, 100, 96), 8)
    with pytest.raises(ValueError, match=r"one of \(2, 4, 8\), got 3"):
        degrade(torch.zeros(1, 2, 9, 9), 3)
    with pytest.raises(ValueError, match="mtf must be in"):
        point_spread(2, mtf=1.0)
