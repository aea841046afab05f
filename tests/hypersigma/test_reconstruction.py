import numpy as np
import pytest
import torch

from hypersigma.reconstruction import (
    BandErrors,
    interpolation,
    nearest_visible,
    squared_error,
    token_statistics,
)


def test_an_error_is_weighed_pixel_by_pixel():
    prediction, target = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    weight = (torch.rand(2, 3, 4) > 0.5).float()
    error = ((prediction - target) ** 2).reshape(2, 3, 4, 2).mean(-1)
    expected = (error * weight).sum() / weight.sum()
    torch.testing.assert_close(squared_error(prediction, target, weight), expected)
    assert squared_error(prediction, target, weight * 0) == 0


def test_statistics_of_a_token_are_those_of_its_valid_pixels():
    values = torch.randn(1, 3, 12) * 4 + 7
    valid = torch.tensor([[[1.0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]])
    mean, spread = token_statistics(values, valid)
    first = values.reshape(1, 3, 4, 3)[0, 0, [0, 1, 3]]
    assert mean[0, 0].item() == pytest.approx(first.mean().item())
    assert spread[0, 0].item() == pytest.approx(first.std().item(), rel=1e-5)
    assert (mean[0, 1].item(), spread[0, 1].item()) == (0, 1)
    assert spread[0, 2].item() == pytest.approx(values[0, 2].std().item(), rel=1e-5)


def test_the_nearest_visible_token_is_taken_whole():
    values = torch.arange(10.0).reshape(1, 5, 2)
    mask = torch.tensor([[True, False, True, True, False]])
    place = torch.tensor([[[400.0], [500], [510], [900], [910]]])
    found = nearest_visible(values, mask, place)
    assert found[0, :, 0].tolist() == [2, 2, 2, 8, 8]


def test_the_nearest_of_bands_that_lie_close_is_the_visible_one_itself():
    place = torch.arange(175.0)[None, :, None] / 8 + 2400
    values = torch.arange(175.0)[None, :, None]
    found = nearest_visible(values, torch.zeros(1, 175, dtype=torch.bool), place)
    torch.testing.assert_close(found, values)


def test_a_line_between_visible_bands_is_numpys():
    rng = np.random.default_rng(1)
    place = np.sort(rng.uniform(400, 2500, (3, 9)))
    hidden = np.zeros((3, 9), bool)
    hidden[0, [0, 1, 4, 8]] = hidden[1, 1:] = hidden[2, :8] = True
    values = rng.normal(size=(3, 9, 2))
    weights = interpolation(torch.from_numpy(hidden), torch.from_numpy(place))
    found = weights @ torch.from_numpy(values)
    for n in range(3):
        seen = ~hidden[n]
        for column in range(2):
            expected = np.interp(place[n], place[n, seen], values[n, seen, column])
            np.testing.assert_allclose(found[n, :, column], expected)


def test_errors_of_bands_add_up_over_windows():
    errors = BandErrors.empty(5)
    rng = np.random.default_rng(0)
    squares, pixels = np.zeros(5), np.zeros(5)
    for first in (0, 2, 2):
        true, guess = (torch.from_numpy(rng.normal(size=(3, 4, 4))) for _ in range(2))
        counted = torch.from_numpy(rng.random((3, 4, 4)) > 0.5)
        errors.add({"guess": guess}, true, counted, first)
        each = ((guess - true) ** 2 * counted).sum((1, 2)).numpy()
        squares[first : first + 3] += each
        pixels[first : first + 3] += counted.sum((1, 2)).numpy()
    np.testing.assert_allclose(errors.rmse("guess"), np.sqrt(squares / pixels))
    assert errors.total("guess") == pytest.approx(np.sqrt(squares.sum() / pixels.sum()))
    unseen = BandErrors.empty(2)
    unseen.add({"guess": torch.zeros(1, 2, 2)}, torch.ones(1, 2, 2), torch.ones(1, 2, 2) > 0, 0)
    assert unseen.rmse("guess")[0] == 1
    assert np.isnan(unseen.rmse("guess")[1])
