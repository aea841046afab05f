import math

import numpy as np
import pytest

from hypersigma.metrics import classification_report, confusion_matrix, legacy


def test_confusion_has_truth_in_rows():
    confusion = confusion_matrix(np.array([1, 1, 0, 2]), np.array([0, 1, 0, 1]), 3)
    np.testing.assert_array_equal(confusion, [[1, 1, 0], [0, 1, 1], [0, 0, 0]])


def test_parts_add_up_to_all():
    rng = np.random.default_rng(0)
    pred, target = rng.integers(0, 5, (2, 30, 7))
    parts = sum(confusion_matrix(p, t, 5) for p, t in zip(pred, target, strict=True))
    np.testing.assert_array_equal(parts, confusion_matrix(pred, target, 5))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_refuses_a_class_out_of_range(wrong):
    with pytest.raises(ValueError, match=r"target must be in 0\.\.2"):
        confusion_matrix(np.array([0, 1]), np.array([0, wrong]), 3)


def test_refuses_different_shapes():
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrix(np.zeros(3, int), np.zeros(4, int), 3)


def test_report_of_a_matrix_worked_by_hand():
    # The textbook 2 x 2 of Cohen's kappa: 20 and 15 agreed, 5 and 10 not; kappa = 0.4.
    report = classification_report(np.array([[20, 5], [10, 15]]))
    assert report["oa"] == pytest.approx(0.7)
    assert report["aa"] == pytest.approx((20 / 25 + 15 / 25) / 2)
    assert report["kappa"] == pytest.approx(0.4)
    assert report["per_class"][1] == {
        "class": 1,
        "support": 25,
        "recall": pytest.approx(0.6),
        "precision": pytest.approx(15 / 20),
        "f1": pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75)),
        "iou": pytest.approx(15 / (15 + 5 + 10)),
    }
    assert report["confusion"] == [[20, 5], [10, 15]]


def test_report_agrees_with_sums_over_samples():
    rng = np.random.default_rng(1)
    target = rng.integers(0, 4, 500)
    pred = np.where(rng.random(500) < 0.6, target, rng.integers(0, 4, 500))
    report = classification_report(confusion_matrix(pred, target, 4))
    agreed = np.mean(pred == target)
    chance = sum(np.mean(pred == k) * np.mean(target == k) for k in range(4))
    assert report["oa"] == pytest.approx(agreed)
    assert report["kappa"] == pytest.approx((agreed - chance) / (1 - chance))
    recalls = [np.mean(pred[target == k] == k) for k in range(4)]
    assert report["aa"] == pytest.approx(np.mean(recalls))
    for k, row in enumerate(report["per_class"]):
        precision = np.mean(target[pred == k] == k)
        assert row["precision"] == pytest.approx(precision)
        assert row["f1"] == pytest.approx(2 / (1 / recalls[k] + 1 / precision))


def test_a_class_absent_from_the_truth_is_nan_and_left_out():
    report = classification_report(np.array([[8, 2, 0], [0, 0, 0], [5, 0, 5]]))
    assert report["aa"] == pytest.approx((0.8 + 0.5) / 2)
    absent = report["per_class"][1]
    assert absent["support"] == 0
    assert all(math.isnan(absent[name]) for name in ("recall", "precision", "f1"))


def test_a_class_never_predicted_has_no_precision_and_f1_0():
    row = classification_report(np.array([[4, 0], [6, 0]]))["per_class"][1]
    assert math.isnan(row["precision"])
    assert (row["recall"], row["f1"]) == (0, 0)


def test_nothing_at_all_is_nan():
    report = classification_report(np.zeros((2, 2), int))
    assert all(math.isnan(report[name]) for name in ("oa", "aa", "kappa"))


def test_overlap_of_each_class():
    found = classification_report(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    overlaps = [one["iou"] for one in found["per_class"]]
    assert overlaps == pytest.approx([6 / 9, 3 / 6, math.nan], nan_ok=True)
    assert found["miou"] == pytest.approx((6 / 9 + 3 / 6) / 2)


def test_published_f1_of_change_is_of_rounded_numbers():
    confusion = np.array([[500, 31], [47, 123]])
    found = legacy.change_report(confusion)
    assert (found["precision"], found["recall"]) == (0.7987, 0.7235)
    assert found["f1"] == 2 * 0.7987 * 0.7235 / (0.7987 + 0.7235)
    exact = classification_report(confusion)["per_class"][1]
    assert exact["f1"] == pytest.approx(2 * 123 / (2 * 123 + 31 + 47))
    assert abs(exact["f1"] - found["f1"]) < 1e-4
