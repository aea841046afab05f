"""Steps gone wrong, processes that fail, and processes that stand still."""

import json
import math

import pytest

from hypersigma import checkpoint, train
from hypersigma.data import Scaling
from hypersigma.pretrain import pretrain
from hypersigma.resume import GuardError
from hypersigma.runlog import read_metrics

from .launching import trained
from .trainee import note_what_is_seen

TRAIN = {"steps": 8, "checkpoint_every": 2, "eval_every": 4}


@pytest.fixture
def change_loss(monkeypatch):
    """Return a function that lets losses be changed by the slot of the stream that they are of."""

    def start(change):
        leave_out, together, now = train._leave_out, train._together, []

        def noting(at, feed, parts):
            at = leave_out(at, feed, parts)
            now[:] = [at.slot]
            return at

        def changed(losses, asked):
            found = together(losses, asked)
            return found | {"loss": change(now[0], found["loss"])}

        monkeypatch.setattr(train, "_leave_out", noting)
        monkeypatch.setattr(train, "_together", changed)

    return start


@pytest.fixture
def ids_of(monkeypatch, tmp_path):
    """Return a function that trains, and returns the tile ids of each step."""

    def run(config):
        folder = tmp_path / f"seen-{config.run.name}"
        monkeypatch.setattr(train, "seed_globally", train.seed_globally)
        monkeypatch.setattr(Scaling, "inputs", Scaling.inputs)
        note_what_is_seen(folder)
        pretrain(config)
        lines = (folder / "0.jsonl").read_text().split("\n")
        return [(line["at"][0], line["ids"]) for line in map(json.loads, filter(None, lines))]

    return run


def test_a_bad_step_takes_the_run_back_and_its_batch_is_left_out(
    pretraining, change_loss, ids_of, caplog
):
    caplog.set_level("INFO")
    config, whole = pretraining("bad", train=TRAIN), pretraining("whole", train=TRAIN)
    order = [ids for _, ids in ids_of(whole)]
    change_loss(lambda slot, loss: math.nan if slot == 5 else loss)
    trained_on = ids_of(config)
    # Back from step 6 to the checkpoint of step 4, and on without what was wrong.
    assert [step for step, _ in trained_on] == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7]
    assert [ids for _, ids in trained_on[:6]] == order[:6]
    assert [ids for _, ids in trained_on[6:9]] == [order[4], *order[6:8]]
    records = read_metrics(config.run)
    assert [record["step"] for record in records] == list(range(1, 9))
    assert all(math.isfinite(record["loss"]) for record in records)
    ours, theirs = ([r["loss"] for r in read_metrics(c.run)] for c in (config, whole))
    assert ours[:5] == theirs[:5]
    (trouble,) = json.loads((config.run / "guard.json").read_text())["troubles"]
    assert (trouble["step"], trouble["slot"], trouble["samples"]) == (6, 5, order[5])
    assert "going back to the last checkpoint, without " + ", ".join(order[5]) in caplog.text
    assert checkpoint.newest(config.run).state["skipped"] == [5]


def test_a_bad_step_before_any_checkpoint_begins_anew(pretraining, change_loss):
    config = pretraining(train=TRAIN | {"guard": {"rewinds": 2}})
    change_loss(lambda slot, loss: math.nan if slot in (0, 2) else loss)
    assert pretrain(config)["steps"] == 8
    state = checkpoint.newest(config.run).state
    assert (state["skipped"], state["slot"]) == ([0, 2], 10)


def test_a_run_that_goes_on_leaves_out_what_was_wrong_before(pretraining, change_loss):
    config = pretraining(train=TRAIN | {"guard": {"rewinds": 0}})
    change_loss(lambda slot, loss: math.nan if slot == 3 else loss)
    with pytest.raises(GuardError):
        pretrain(config)
    more = pretraining(train=TRAIN | {"guard": {"rewinds": 1}})
    assert pretrain(more)["steps"] == 8
    assert checkpoint.newest(config.run).state["skipped"] == [3]


def test_bad_steps_again_and_again_stop_the_run_with_a_report(pretraining, change_loss):
    config = pretraining(train=TRAIN | {"guard": {"rewinds": 3}})
    change_loss(lambda slot, loss: math.nan)
    with pytest.raises(GuardError, match=r"step 1: expected a finite loss .* number 4 in this run"):
        pretrain(config)
    report = json.loads((config.run / "guard.json").read_text())["troubles"]
    assert [one["slot"] for one in report] == [0, 1, 2, 3]
    assert all(len(one["samples"]) == 2 and one["loss"] is None for one in report)


def test_a_spike_is_a_bad_step_and_the_last_losses_are_remembered(pretraining, change_loss):
    guard = {"spike_sigmas": 20, "window": 4}
    config = pretraining(train=TRAIN | {"guard": guard})
    change_loss(lambda slot, loss: 100 * loss if slot in (2, 6) else loss)
    pretrain(config)
    # Too few losses to tell by at first.
    assert checkpoint.newest(config.run).state["skipped"] == [6]
    losses = [record["loss"] for record in read_metrics(config.run)]
    assert checkpoint.newest(config.run).state["recent"] == losses[-4:]


@pytest.mark.soak
def test_processes_go_back_together(pretraining, tmp_path):
    config = pretraining(train=TRAIN | {"accumulate": 2, "engine": "deepspeed", "zero": 2})
    trained(tmp_path / "out", [config], "--nan", 0, 5, "--seen", tmp_path / "seen", processes=2)
    assert checkpoint.newest(config.run).state["skipped"] == [0, 5]
    assert [record["step"] for record in read_metrics(config.run)] == list(range(1, 9))
    troubles = json.loads((config.run / "guard.json").read_text())["troubles"]
    assert [len(one["samples"]) for one in troubles] == [4, 4]  # of both


@pytest.mark.soak
def test_an_error_in_one_process_ends_all(pretraining, tmp_path):
    config = pretraining(train=TRAIN | {"accumulate": 2})
    trained(tmp_path / "out", [config], "--fail", 1, processes=2, code=1)
    assert "told to fail" in (tmp_path / "out/1.err").read_text()
    assert "process 0 of 2 lost another one" in (tmp_path / "out/0.err").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "processes", "words"),
    [("data", 1, ["waits for a batch"]), ("compute", 2, ["computes", "computes"])],
)
def test_what_stands_still_says_where_and_ends(pretraining, tmp_path, what, processes, words):
    config = pretraining(train=TRAIN | {"accumulate": 2, "stall_seconds": 8})
    trained(tmp_path / "out", [config], "--stall", what, processes=processes, code=1)
    for rank, word in enumerate(words):
        (path,) = (config.run / "stalls").glob(f"*-process-{rank}.txt")
        text = path.read_text()
        assert f"no step for 8 s since step 2: process {rank} {word}" in text
        assert "trainee.py" in text  # the stack of the thread that sleeps, or waits for it
    assert checkpoint.newest(config.run).state["step"] == 2
    config = pretraining(train=TRAIN | {"accumulate": 2})
    assert pretrain(config)["steps"] == 8
