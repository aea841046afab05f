import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from hypersigma.cubes.preprocess import Standardize, fit_standardize


def spectra(count=50, bands=7):
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(count, 3)) @ rng.normal(size=(3, bands)) * 10
        + 100
        + 0.1 * rng.normal(size=(count, bands))
    )


def test_it_is_what_others_do():
    x = spectra()
    image = torch.from_numpy(x.T.reshape(1, 7, 5, 10)).float()
    found = fit_standardize(torch.from_numpy(x))(image)
    wanted = (x - x.mean(0)) / x.std(0, ddof=1)
    np.testing.assert_allclose(found[0].flatten(1).T, wanted, atol=1e-4)
    found = fit_standardize(torch.from_numpy(x), components=3)(image)
    wanted = PCA(3, whiten=True).fit_transform(StandardScaler().fit_transform(x))
    np.testing.assert_allclose(found[0].flatten(1).T.abs(), np.abs(wanted), atol=2e-3)


@pytest.mark.parametrize("components", [None, 4])
def test_it_travels_with_the_weights(components):
    fitted = fit_standardize(torch.from_numpy(spectra()), components=components)
    other = Standardize(7, components)
    other.load_state_dict(fitted.state_dict())
    x = torch.randn(2, 7, 3, 3) + 100
    torch.testing.assert_close(other(x), fitted(x))
    assert other.out_bands == (components or 7) == other(x).shape[1]


def test_gaps_and_still_bands_are_0():
    x = torch.from_numpy(spectra())
    x[:, 2] = 5
    x[0, 1] = torch.nan
    model = fit_standardize(x)
    image = x.T.reshape(1, 7, 5, 10).float()
    found = model(image)
    assert found.isfinite().all()
    assert not found[:, 2].any()
    assert found[0, 1, 0, 0] == 0


def test_what_cannot_be_is_refused():
    x = torch.from_numpy(spectra())
    with pytest.raises(ValueError, match="at most 7 components of 50 spectra"):
        fit_standardize(x, components=8)
    with pytest.raises(ValueError, match="got 0 of 50"):
        fit_standardize(x * torch.nan)
    with pytest.raises(ValueError, match="the 7 bands that the scaling was fitted on, got 6"):
        fit_standardize(x)(torch.zeros(1, 6, 2, 2))
