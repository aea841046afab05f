import itertools

import numpy as np
import pytest
import scipy.io
from scipy import optimize

from hypersigma.classical.unmixing import fcls, nfindr, nnls, vca
from hypersigma.metrics import unmixing_report
from tests.hypersigma.classical.real import DATA


def mixtures(seed, *, count=4, bands=30, noise=0.0, pixels=800):
    """Mixtures, their endmembers and abundances; pixels 0, 1, ... are pure."""
    rng = np.random.default_rng(seed)
    ends = rng.random((bands, count))
    shares = rng.dirichlet(np.ones(count), pixels).T * 0.95 + 0.05 / count
    shares[:, :count] = np.eye(count)
    return ends @ shares + noise * rng.normal(size=(bands, pixels)), ends, shares


@pytest.mark.parametrize("find", [vca, nfindr])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_the_pure_pixels_are_found(find, noise, seed):
    x, _, _ = mixtures(seed, noise=noise)
    found = find(x, 4, rng=np.random.default_rng(seed))
    assert sorted(found.tolist()) == [0, 1, 2, 3]


def test_vca_still_finds_them_in_much_noise():
    x, ends, _ = mixtures(0, noise=0.05, bands=200)
    found = vca(x, 4, rng=np.random.default_rng(0))
    away = np.linalg.norm(x[:, found][:, :, None] - ends[:, None], axis=0).min(1)
    assert away.max() < 1.5 * 0.05 * np.sqrt(200)  # noise itself is one such


def test_no_other_pixels_span_a_larger_simplex():
    x, _, _ = mixtures(1, count=3, bands=2, pixels=25)
    x = x + 0.2 * np.random.default_rng(5).normal(size=x.shape)  # none is pure

    def volume(chosen):
        return abs(np.linalg.det(np.vstack((x[:, list(chosen)], np.ones(3)))))

    y = np.vstack((x, x.sum(0)))
    found = nfindr(y, 3, rng=np.random.default_rng(0))
    assert volume(found) == pytest.approx(max(map(volume, itertools.combinations(range(25), 3))))


@pytest.mark.parametrize("seed", range(3))
def test_abundances_are_the_best_that_are_allowed(seed):
    x, ends, shares = mixtures(seed, noise=0.1, pixels=12)
    found, free = fcls(x, ends), nnls(x, ends)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-9)
    assert free.min() >= 0
    for number in range(12):
        best = optimize.minimize(
            lambda a, number=number: np.square(ends @ a - x[:, number]).sum(), np.full(4, 0.25),
            bounds=[(0, 1)] * 4, constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
            method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        np.testing.assert_allclose(found[:, number], best.x, atol=2e-4)
        error = np.square(ends @ free[:, number] - x[:, number]).sum()
        assert error <= best.fun + 1e-9
    clean, _, _ = mixtures(seed, pixels=12)
    np.testing.assert_allclose(fcls(clean, ends), shares, atol=1e-5)


def test_what_does_not_fit_is_refused():
    x, ends, _ = mixtures(0)
    with pytest.raises(ValueError, match="from 2 to 30 endmembers of 800 pixels in 30 bands"):
        vca(x, 31, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="pixels' 30 bands, got 29"):
        fcls(x, ends[1:])
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="expected finite values"):
        vca(x, 4, rng=np.random.default_rng(0))


@pytest.mark.skipif(DATA is None, reason="needs the measured scenes")
def test_jasper_ridge():
    stored = scipy.io.loadmat(DATA / "jasper" / "jasperRidge2_R198.mat")["Y"].astype("f8") / 5000
    truth = scipy.io.loadmat(DATA / "jasper" / "jasper_end4.mat")
    found = vca(stored, 4, rng=np.random.default_rng(0))
    ends = stored[:, found]
    report = unmixing_report(ends.T, truth["M"].T, fcls(stored, ends), truth["A"])
    known = unmixing_report(truth["M"].T, truth["M"].T, fcls(stored, truth["M"]), truth["A"])
    assert known["rmse"] < 0.1  # with the true endmembers
    assert known["rmse"] < report["rmse"] < 0.3
    assert report["sad"] < 0.5
