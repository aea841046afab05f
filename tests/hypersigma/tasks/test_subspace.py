import numpy as np
import pytest
import torch

from hypersigma.tasks.subspace import Refiner, Subspace

BANDS, SIDE = 30, 24


def scene(seed=0, *, rank=3):
    rng = np.random.default_rng(seed)
    spectra = rng.random((BANDS, rank))
    shares = rng.dirichlet(np.ones(rank), SIDE * SIDE).T.reshape(rank, SIDE, SIDE)
    return torch.from_numpy(np.tensordot(spectra, shares, 1)).float()


def fitted(x_CHW, directions=4):
    subspace = Subspace(BANDS, directions)
    subspace.fit(x_CHW.flatten(1))
    return subspace


def test_spectra_of_a_subspace_come_back_from_their_coefficients():
    x = scene()
    subspace = fitted(x)
    coefficients = subspace(x[None])
    back = subspace.back(coefficients)[0] + subspace.mean_C[:, None, None]
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)
    # Two directions vary: shares add up to one.
    deviation = coefficients.std((0, 2, 3), correction=0)
    torch.testing.assert_close(deviation[:2], torch.ones(2), atol=1e-3, rtol=0)
    assert deviation[2:].max() < 0.01
    again = Subspace(BANDS, 4)
    again.load_state_dict(subspace.state_dict())
    torch.testing.assert_close(again(x[None]), coefficients)


def test_more_directions_than_bands_are_not_there():
    assert Subspace(3, 8)(torch.zeros(1, 3, 2, 2)).shape == (1, 3, 2, 2)


def test_what_bands_agree_on_is_found_among_impulses_and_dead_lines():
    x = scene()
    subspace = fitted(x)
    rng = np.random.default_rng(1)
    noisy = x + 0.02 * torch.from_numpy(rng.normal(size=x.shape)).float()
    noisy[::4, rng.random((SIDE, SIDE)) < 0.3] = 1.0
    noisy[1::4, :, 5] = 0.0
    found = subspace.robust(noisy)
    # Least squares by all bands alike, in the same subspace.
    axes = subspace.axes_CK
    centred = (noisy - subspace.mean_C[:, None, None]).flatten(1)
    plain = (axes @ (axes.T @ centred)).view_as(x) + subspace.mean_C[:, None, None]
    assert (found - x).square().mean() < 0.1 * (plain - x).square().mean()
    assert (found - x).square().mean().sqrt() < 0.008


def test_noise_alone_is_estimated_as_by_a_linear_filter_that_knows_all():
    x = scene()
    subspace = fitted(x, 6)
    sigma = 0.1
    noise = sigma * torch.from_numpy(np.random.default_rng(2).normal(size=x.shape)).float()
    found = subspace.robust(x + noise)
    centred = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
    cov = centred @ centred.T / centred.shape[1]
    wiener = cov @ torch.linalg.inv(cov + sigma**2 * torch.eye(BANDS))
    best = (wiener @ (centred + noise.flatten(1)) - centred).square().mean()
    assert (found - x).square().mean() < 1.5 * best


def test_corrections_are_none_on_even_ground_and_grow_with_contrast():
    torch.manual_seed(0)
    refine = Refiner(3, 5, 2, width=8, depth=3)
    features = torch.randn(1, 5, 12, 12)
    assert refine(torch.ones(1, 2, 3, 12, 12), features).abs().max() < 1e-6
    x = torch.randn(1, 2, 3, 12, 12)
    once = refine(x, features)
    torch.testing.assert_close(refine(2.5 * x + 7, features), 2.5 * once, atol=1e-6, rtol=1e-4)
    assert once.abs().max() > 0
    once.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in refine.parameters())


@pytest.mark.parametrize("depth", [2, 5])
def test_depth_is_the_number_of_layers(depth):
    weights = [
        p for p in Refiner(3, 5, 2, width=8, depth=depth).parameters() if p.shape[2:] == (3, 3)
    ]
    assert len(weights) == depth
