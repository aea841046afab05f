"""A run that a tracker is told of."""

import sys
from types import ModuleType

import pytest

from hypersigma.pretrain import pretrain
from hypersigma.runfolder import TrainError


def test_the_tracker_is_told_each_step(pretraining, monkeypatch):
    steps, config = [], pretraining(train={"steps": 3, "track": "trackio"})
    module = ModuleType("trackio")
    module.init = lambda **settings: steps.append(settings["config"]["config"]["train"]["steps"])
    module.log = lambda record, step: steps.append((step, sorted(record)))
    module.finish = lambda: steps.append("end")
    monkeypatch.setitem(sys.modules, "trackio", module)
    pretrain(config)
    assert steps[0] == 3
    assert steps[-1] == "end"
    assert [step for step, _ in steps[1:-1]] == [1, 2, 3]
    assert {"loss", "lr", "samples_per_s", "memory_gb"} <= set(steps[1][1])
    pretrain(pretraining(train={"steps": 3}))  # may be left out on the way


def test_a_tracker_that_is_missing_stops_a_run_before_its_first_step(pretraining, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = pretraining(train={"track": "wandb"})
    with pytest.raises(TrainError, match="not installed"):
        pretrain(config)
    assert not (config.run / "metrics.jsonl").exists()
