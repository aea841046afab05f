"""What a run says of each step."""

import logging

import pytest

from hypersigma import runlog
from hypersigma.runlog import RunLog, duration, in_short, memory_gb, read_metrics

RECORD = {"loss": 0.51234, "lr": 1.25e-3, "samples_per_s": 212.34, "data_wait": 0.06}


def test_in_short_is_loss_rate_pace_waiting_and_memory():
    words = in_short(RECORD | {"memory_gb": 9.14}, 2.0)
    assert words == "loss 0.5123  lr 0.0013  212.3 samples/s  waits 3%  9.1 GB"
    assert in_short({"loss": 1.0}, 2.0) == "loss 1.0000"
    assert "waits 100%" in in_short(RECORD | {"data_wait": 3.0}, 2.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (7384, "2 h 3 min"),
        (90000, "1 d 1 h"), (86400 + 59, "1 d 59 s"),
    ],
)  # fmt: skip
def test_duration(seconds, words):
    assert duration(seconds) == words


def test_each_step_has_its_memory_and_the_time_left(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    clock = iter((0.0, 5.0, 10.0))
    monkeypatch.setattr(runlog.time, "perf_counter", lambda: next(clock))
    with RunLog(tmp_path, start=0, steps=100, every=2) as log:
        told = [log.write(step, RECORD) for step in (1, 2)]
    assert read_metrics(tmp_path) == [{"step": 1, **told[0]}, {"step": 2, **told[1]}]
    assert 0.05 < told[0]["memory_gb"] <= told[1]["memory_gb"] <= memory_gb()
    assert "step 2/100" in caplog.text
    assert "left 8 min 10 s" in caplog.text  # 98 steps of 5 s
