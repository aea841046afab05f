"""Trackers, by modules that note how they are called: one run stays one, and ends in any case."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from hypersigma.runfolder import TrainError
from hypersigma.trackers import TRACKERS, tracker

CONFIG = {"task": "pretrain", "config": {"train": {"steps": 3}, "kind": "spatial"}}
RECORD = {"loss": 0.5, "lr": 1e-3}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """Fakes of all three; returns what they were called with."""
    noted = []

    def note(name, result=None):
        def called(*arguments, **settings):
            noted.append((name, arguments, settings))
            return result

        return called

    made = {"wandb": {"init": SimpleNamespace(log=note("log"), finish=note("finish"))}}
    made["trackio"] = {"init": None, "log": None, "finish": None}
    started = SimpleNamespace(info=SimpleNamespace(run_id="7f"))
    made["mlflow"] = {"set_experiment": None, "start_run": started, "log_params": None}
    made["mlflow"] |= {"log_metrics": None, "end_run": None}
    for name, functions in made.items():
        module = ModuleType(name)
        for function, result in functions.items():
            setattr(module, function, note(function, result))
        monkeypatch.setitem(sys.modules, name, module)
    return noted


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_that_goes_on_is_the_same_run(run, calls, name):
    for step in (1, 2):
        with tracker(name, run) as track:
            track(step, RECORD)
    assert [call[0] for call in calls] == ["init", "log", "finish"] * 2
    first, second = (settings for called, _, settings in calls if called == "init")
    assert first == second
    assert (first["project"], first["config"], first["resume"]) == ("hypersigma", CONFIG, "allow")
    logs = [(arguments, settings) for called, arguments, settings in calls if called == "log"]
    assert logs == [((RECORD,), {"step": 1}), ((RECORD,), {"step": 2})]


def test_mlflow_gets_parameters_once(run, calls):
    for step in (1, 2):
        with tracker("mlflow", run) as track:
            track(step, RECORD)
    ends = ["log_metrics", "end_run"]
    assert [call[0] for call in calls] == [
        "set_experiment", "start_run", "log_params", *ends, "set_experiment", "start_run", *ends,
    ]  # fmt: skip
    first, second = (settings for called, _, settings in calls if called == "start_run")
    assert first == {"run_id": None, "run_name": run.name}
    assert second == {"run_id": "7f", "run_name": None}
    params = next(arguments[0] for called, arguments, _ in calls if called == "log_params")
    assert params == {"task": "pretrain", "config.train.steps": "3", "config.kind": "spatial"}


@pytest.mark.parametrize("name", TRACKERS)
def test_ends_when_the_training_fails(run, calls, name):
    with pytest.raises(LookupError), tracker(name, run):
        raise LookupError
    assert calls[-1][0] in ("finish", "end_run")


def test_other_runs_are_other_runs(tmp_path, calls):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
        with tracker("wandb", tmp_path / folder):
            pass
    ids = [settings["id"] for called, _, settings in calls if called == "init"]
    assert len(set(ids)) == 2


def test_none_tells_nobody_and_writes_nothing(tmp_path, calls):
    with tracker("none", tmp_path) as track:
        track(1, RECORD)
    assert calls == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TRACKERS)
def test_one_that_is_not_installed_is_named(run, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    words = f"train.track is {name}, which is not installed: `pip"
    with pytest.raises(TrainError, match=words), tracker(name, run):
        pass


def test_a_server_that_fails_stops_no_training(run, calls, monkeypatch, caplog):
    def refuse(*arguments, **settings):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(sys.modules["trackio"], "log", refuse)
    with tracker("trackio", run) as track:
        track(1, RECORD)
        track(2, RECORD)
    assert caplog.text.count("was not told to trackio: ConnectionError('nobody there')") == 1
