"""Loader-bound or compute-bound, by hand."""

import pytest

from hypersigma.diagnosis import Pace, diagnosis, pace


def steps(*waits, seconds=2.0, samples=8):
    return [{"samples_per_s": samples / seconds, "data_wait": wait} for wait in waits]


def test_pace_leaves_out_the_start():
    found = pace(steps(2, 2, 0.5, 0.7), samples=8)
    assert found.samples_per_s == pytest.approx(4)
    assert found.waiting == pytest.approx(1.2 / 4)
    assert pace(steps(1, 1), samples=8) is None
    assert pace([], samples=8) is None


def test_slow_steps_count_by_their_time():
    records = steps(0, 0, 0, seconds=1) + steps(3, seconds=3)
    # One step of 1 s without waiting, one of 3 s that is all waiting; 16 samples in 4 s.
    assert pace(records, samples=8) == Pace(4, 0.75)


@pytest.mark.parametrize(
    ("waiting", "workers", "words"),
    [
        (0.04, 0, "compute-bound: 4% waiting for data"),
        (0.38, 0, "loader-bound: 38% waiting for data; try workers=2"),
        (0.5, 4, "loader-bound: 50% waiting for data; try workers=8"),
        (0.06, 8, "loader-bound: 6% waiting for data; try workers=9"),
        (1.0, 1, "loader-bound: 100% waiting for data; try workers=20"),
        (0.38, None, "loader-bound: 38% waiting for data"),
    ],
)
def test_diagnosis_says_what_may_help(waiting, workers, words):
    assert diagnosis(Pace(10, waiting), workers) == words
