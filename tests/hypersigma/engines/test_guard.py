"""What counts as a step gone wrong."""

import math

import numpy as np
import pytest

from hypersigma import guard
from hypersigma.guard import GuardConfig, Trouble


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (0.1, math.nan)])
def test_what_is_not_finite_is_wrong(loss, norm):
    assert "finite" in guard.wrong(loss, norm, (), GuardConfig())


def test_a_spike_is_so_many_robust_deviations_above_the_median():
    rng = np.random.default_rng(0)
    recent = tuple(rng.normal(2.0, 0.1, 10_000))
    config = GuardConfig(spike_sigmas=5, window=10_000)
    # Of a normal distribution the robust deviation is the deviation.
    assert guard.wrong(2.48, 1.0, recent, config) is None
    assert "above the median" in guard.wrong(2.52, 1.0, recent, config)
    assert guard.wrong(0.0, 1.0, recent, config) is None  # below is none
    assert guard.wrong(2.52, 1.0, recent[1:], config) is None  # too few to tell
    assert guard.wrong(99.0, 1.0, recent, GuardConfig()) is None  # not asked for


def test_remembers_as_many_losses_as_it_needs():
    assert guard.remembered(1.0, (), GuardConfig()) == ()
    config = GuardConfig(spike_sigmas=5, window=3)
    recent = ()
    for loss in (1.0, 2.0, 3.0, 4.0):
        recent = guard.remembered(loss, recent, config)
    assert recent == (2.0, 3.0, 4.0)


def test_the_report_keeps_what_was_noted(tmp_path):
    first = Trouble(3, 2, "so", math.nan, 1.5, ["a", "b"])
    guard.note(tmp_path, first)
    found = guard.note(tmp_path, Trouble(4, 5, "else", 9.0, math.inf, []))
    assert [one.slot for one in found] == [2, 5]
    read = guard.troubles(tmp_path)
    assert (read[0].loss, read[0].grad_norm, read[0].samples) == (None, 1.5, ["a", "b"])
    assert (read[1].loss, read[1].grad_norm) == (9.0, None)
