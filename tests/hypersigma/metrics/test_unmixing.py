import itertools
import math

import numpy as np
import pytest

from hypersigma.metrics import legacy, unmixing_report
from hypersigma.metrics.unmixing import matched, spectral_angles


def test_angles_of_known_spectra():
    a, b = np.array([[1.0, 0], [1, 1]]), np.array([[2.0, 0], [0, 3], [1, math.sqrt(3)]])
    wanted = np.radians([[0, 90, 60], [45, 45, 15]])
    np.testing.assert_allclose(spectral_angles(a, b), wanted, atol=1e-15)
    tiny = spectral_angles(np.array([[1.0, 0]]), np.array([[1.0, 1e-9]]))
    assert tiny[0, 0] == pytest.approx(1e-9, rel=1e-6)  # arccos of the cosine says 0


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_all_orders_is_found(seed):
    rng = np.random.default_rng(seed)
    true, found = rng.random((2, 5, 12))
    angles = spectral_angles(true, found)
    best = min(itertools.permutations(range(5)), key=lambda p: angles[range(5), p].sum())
    assert matched(found, true).tolist() == list(best)


def test_errors_are_told_in_the_true_order_whatever_the_scale():
    rng = np.random.default_rng(0)
    ends, shares = rng.random((3, 20)), rng.dirichlet([1, 1, 1], 50).T
    order = [2, 0, 1]
    noisy = shares.copy()
    noisy[1] += 0.3
    found = unmixing_report(7 * ends[order], ends, noisy[order], shares)
    assert found["sad"] == pytest.approx(0, abs=1e-7)
    assert found["rmse_each"] == pytest.approx([0, 0.3, 0])
    assert found["rmse"] == pytest.approx(0.3 / math.sqrt(3))
    assert found["mse"] == pytest.approx(0.03)
    assert np.array(order)[found["order"]].tolist() == [0, 1, 2]


def test_nearest_first_is_not_the_best_order():
    true = np.array([[1.0, 0.0], [math.cos(0.5), math.sin(0.5)]])
    found = np.array([[math.cos(0.3), math.sin(0.3)], [math.cos(1.2), math.sin(1.2)]])
    assert legacy.matched(found, true) == [(1, 0), (0, 1)]  # 0.2 + 1.2
    assert matched(found, true).tolist() == [0, 1]  # 0.3 + 0.7


def test_what_does_not_fit_is_refused():
    ends, shares = np.ones((3, 4)), np.ones((3, 9))
    with pytest.raises(ValueError, match="one number of bands, got 4 and 5"):
        spectral_angles(ends, np.ones((3, 5)))
    with pytest.raises(ValueError, match="as many endmembers as are true, 3, got 2"):
        unmixing_report(ends[:2], ends, shares[:2], shares)
    with pytest.raises(ValueError, match=r"must be \(3, pixels\)"):
        unmixing_report(ends, ends, shares[:, :5], shares)
    with pytest.raises(ValueError, match="one of zeros"):
        spectral_angles(ends, np.zeros((1, 4)))
