import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score, roc_curve

from hypersigma.metrics import detection_report, legacy


def scores(seed, *, ties):
    rng = np.random.default_rng(seed)
    target = rng.random((20, 30)) < 0.1
    score = rng.normal(size=target.shape) + target
    return (np.round(score, 1) if ties else score), target


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_areas_are_those_of_the_curves(seed, ties):
    score, target = scores(seed, ties=ties)
    found = detection_report(score, target)
    assert found["auc_d_f"] == pytest.approx(roc_auc_score(target.ravel(), score.ravel()))
    unit = (score - score.min()) / np.ptp(score)
    taus = np.linspace(0, 1, 20_001)
    for name, part in {"auc_d_tau": unit[target], "auc_f_tau": unit[~target]}.items():
        rate = (part[None] >= taus[:, None]).mean(1)
        assert found[name] == pytest.approx(np.trapezoid(rate, taus), abs=1e-4)
    assert found["auc_oa"] == pytest.approx(
        found["auc_d_f"] + found["auc_d_tau"] - found["auc_f_tau"]
    )
    assert found["auc_snpr"] == pytest.approx(found["auc_d_tau"] / found["auc_f_tau"])


def test_perfect_scores():
    target = np.array([True, False, False])
    assert detection_report(np.array([9.0, 1, 1]), target) == {
        "auc_d_f": 1.0, "auc_d_tau": 1.0, "auc_f_tau": 0.0, "auc_oa": 2.0, "auc_snpr": np.inf,
    }  # fmt: skip


@pytest.mark.parametrize("ties", [False, True])
def test_the_published_areas(ties):
    score, target = scores(5, ties=ties)
    found = legacy.detection_report(score, target)
    unit = (score - score.min()) / np.ptp(score)
    f, d, tau = (a[1:] for a in roc_curve(target.ravel(), unit.ravel(), drop_intermediate=False))
    areas = [round(float(auc(x, y)), 4) for x, y in ((f, d), (tau, d), (tau, f))]
    assert [found[n] for n in ("auc_d_f", "auc_d_tau", "auc_f_tau")] == areas
    assert found["auc_oa"] == areas[0] + areas[1] - areas[2]
    assert found["auc_snpr"] == areas[1] / areas[2]


@pytest.mark.parametrize(
    ("score", "target", "said"),
    [
        ([1.0, 2], [True, False, False], r"one shape, got \(2,\) and \(3,\)"),
        ([1.0, 2], [False, False], "got 0 targets of 2"),
        ([1.0, 2], [True, True], "got 2 targets of 2"),
        ([1.0, np.nan], [True, False], "got 1 others"),
        ([1.0, 1], [True, False], "got 1.0 everywhere"),
    ],
)
def test_what_has_no_curve_is_refused(score, target, said):
    with pytest.raises(ValueError, match=said):
        detection_report(np.array(score), np.array(target))
