import numpy as np
import pytest

from hypersigma.classical.change import cva, irmad
from hypersigma.metrics import detection_report


def dates(seed=0):
    """Two dates of one scene in other light, and where it changed."""
    rng = np.random.default_rng(seed)
    ground = np.tensordot(rng.normal(size=(6, 3)), rng.normal(size=(3, 40, 40)), 1)
    changed = np.zeros((40, 40), bool)
    changed[5:12, 20:30] = True
    after = ground.copy()
    after[:, changed] += rng.normal(size=6)[:, None] * 3
    before, after = (t + 0.1 * rng.normal(size=t.shape) for t in (ground, after))
    return before, 1.7 * after + np.arange(6)[:, None, None], changed


@pytest.mark.parametrize("detect", [cva, irmad])
def test_what_changed_is_found(detect):
    before, after, changed = dates()
    assert detection_report(detect(before, after), changed)["auc_d_f"] > 0.95


def test_irmad_does_not_mind_what_is_linear():
    before, after, _ = dates()
    rng = np.random.default_rng(1)
    mixed = np.tensordot(rng.normal(size=(6, 6)), after, 1) + 3
    one, other = (irmad(before, x, ridge=1e-10) for x in (after, mixed))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_where_nothing_changed_it_is_chi_squared():
    rng = np.random.default_rng(2)
    ground = rng.normal(size=(4, 60, 60))
    before, after = (ground + 0.3 * rng.normal(size=ground.shape) for _ in range(2))
    found = irmad(before, after, rounds=1)  # unweighted: all pixels count alike
    assert found.mean() == pytest.approx(4, rel=0.05)
    assert found.var() == pytest.approx(8, rel=0.25)


def test_what_does_not_fit_is_refused():
    before, after, _ = dates()
    with pytest.raises(ValueError, match=r"one shape, got \(6, 40, 40\) and \(5, 40, 40\)"):
        irmad(before, after[1:])
    after[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="expected finite"):
        cva(before, after)
