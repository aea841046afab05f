"""Copies of checkpoints elsewhere, from which a run goes on when its folder is lost."""

import json
import logging
import shutil

import pytest

from hypersigma import checkpoint
from hypersigma.finetune import finetune
from hypersigma.mirror import Mirror
from hypersigma.pretrain import pretrain
from hypersigma.runfolder import TrainError
from hypersigma.runlog import read_metrics
from storage.places import Folder


def steps(folder):
    return sorted(path.name for path in folder.glob("step-*"))


@pytest.fixture
def cut(pretraining, tmp_path, monkeypatch):
    """Return configs of a run of 4 steps and of the same with 8, mirrored."""

    def make(count):
        train = {"steps": count, "checkpoint_every": 2, "mirror": str(tmp_path / "mirror")}
        return pretraining("run", train=train)

    return make


def test_a_run_whose_folder_is_lost_goes_on_from_the_mirror(
    pretraining, tmp_path, monkeypatch, cut
):
    whole = pretraining("whole", train={"steps": 8, "checkpoint_every": 2})
    pretrain(whole)
    config = cut(8)
    lost_after(4, monkeypatch, config)
    assert steps(tmp_path / "mirror") == ["step-00000002", "step-00000004"]
    shutil.rmtree(config.run)
    pretrain(config)
    assert [record["step"] for record in read_metrics(config.run)] == list(range(1, 9))
    ends = [checkpoint.newest(one.run).folder / checkpoint.MODEL_FILE for one in (whole, config)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    # What was removed here is removed there.
    assert steps(tmp_path / "mirror") == steps(config.run / "checkpoints")
    assert not list(config.run.glob("checkpoints/step-*/.unfinished"))


def lost_after(step, monkeypatch, config, run=pretrain):
    """Run until a step, whose machine is then lost."""

    class LostError(Exception):
        pass

    with monkeypatch.context() as patched:
        from hypersigma import train

        leave_out = train._leave_out

        def lost(at, feed, parts):
            if at.step == step:
                raise LostError
            return leave_out(at, feed, parts)

        patched.setattr(train, "_leave_out", lost)
        with pytest.raises(LostError):
            run(config)


def mirror_of(config):
    """Return the mirror as a run of `config` opens it."""
    run_identity = json.loads((config.run / "config.json").read_text())
    return Mirror(config.run, config.train.mirror, run_identity)


def lose(config):
    """Remove a run's folder but for whose it is, as `claim` makes it."""
    text = (config.run / "config.json").read_text()
    shutil.rmtree(config.run)
    config.run.mkdir()
    (config.run / "config.json").write_text(text)


def test_a_torn_copy_is_passed_over_and_sent_again(tmp_path, monkeypatch, cut, caplog):
    config, there = cut(8), tmp_path / "mirror"
    lost_after(4, monkeypatch, config)
    whole = (there / "step-00000004" / checkpoint.MODEL_FILE).read_bytes()
    lose(config)
    (there / "step-00000004" / checkpoint.MODEL_FILE).unlink()  # it may be a link to the run's
    (there / "step-00000004" / checkpoint.MODEL_FILE).write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        mirror_of(config).fetch()
    assert "torn" in caplog.text
    assert steps(config.run / "checkpoints") == ["step-00000002"]
    lost_after(4, monkeypatch, config)
    assert (there / "step-00000004" / checkpoint.MODEL_FILE).read_bytes() == whole
    (there / "step-00000004" / checkpoint.STATE_FILE).unlink()  # still being sent
    lose(config)
    mirror_of(config).fetch()
    assert steps(config.run / "checkpoints") == ["step-00000002"]


def test_what_is_newer_here_stays(tmp_path, monkeypatch, cut):
    config = cut(8)
    lost_after(4, monkeypatch, config)
    newest = config.run / "checkpoints/step-00000004"
    shutil.rmtree(tmp_path / "mirror/step-00000004")
    mirror_of(config).fetch()
    assert checkpoint.newest(config.run).folder == newest


def test_a_damaged_checkpoint_here_comes_anew(monkeypatch, cut):
    config = cut(8)
    lost_after(4, monkeypatch, config)
    path = config.run / "checkpoints/step-00000004" / checkpoint.MODEL_FILE
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(b"half")
    mirror_of(config).fetch()
    assert path.read_bytes() == whole


def test_what_is_only_there_stays_there(pretraining, tmp_path, monkeypatch):
    train = {"steps": 8, "checkpoint_every": 2, "keep": 1, "keep_every": 2}
    config = pretraining("run", train={**train, "mirror": str(tmp_path / "mirror")})
    lost_after(6, monkeypatch, config)
    shutil.rmtree(config.run)
    pretrain(config)
    assert steps(config.run / "checkpoints") == ["step-00000006", "step-00000008"]
    assert steps(tmp_path / "mirror") == [f"step-{n:08d}" for n in (2, 4, 6, 8)]


def test_the_best_checkpoint_comes_back_too(finetuning, tmp_path, monkeypatch):
    train = {"steps": 6, "checkpoint_every": 1, "eval_every": 3, "keep": 1}
    config = finetuning("run", train={**train, "mirror": str(tmp_path / "mirror")})
    lost_after(5, monkeypatch, config, finetune)
    best = checkpoint.newest(config.run).state["best"]["step"]
    lose(config)
    mirror_of(config).fetch()
    assert f"step-{best:08d}" in steps(config.run / "checkpoints")


def test_a_finished_run_whose_folder_is_lost_is_finished(cut):
    config = cut(4)
    summary = pretrain(config)
    shutil.rmtree(config.run)
    assert pretrain(config)["last_loss"] == summary["last_loss"]


def test_the_mirror_of_another_run_is_refused(pretraining, cut):
    config = cut(2)
    pretrain(config)
    other = pretraining("other", train={"steps": 4, "mirror": config.train.mirror})
    with pytest.raises(TrainError, match=r"mirror .* holds another run: .*run is"):
        pretrain(other)


def test_a_mirror_that_cannot_be_read_begins_no_run_anew(monkeypatch, cut, caplog):
    config = cut(8)
    lost_after(4, monkeypatch, config)

    def fails(_):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(Folder, "names", fails)
    with caplog.at_level(logging.WARNING):
        assert pretrain(config)["steps"] == 8
    assert "no route to host; training goes on from the run folder" in caplog.text
    shutil.rmtree(config.run)
    with pytest.raises(TrainError, match=r"cannot be read: no route .* would begin anew"):
        pretrain(config)


def test_a_mirror_that_fails_stops_no_run(monkeypatch, cut, caplog):
    def fails(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(Folder, "take", fails)
    with caplog.at_level(logging.WARNING):
        assert pretrain(cut(2))["steps"] == 2
    assert "no route to host; training goes on" in caplog.text


def test_a_run_of_an_earlier_version_goes_on(pretraining, monkeypatch):
    config = pretraining(train={"steps": 6, "checkpoint_every": 2})
    lost_after(4, monkeypatch, config)
    path = config.run / "config.json"
    old = json.loads(path.read_text())
    assert old["config"].pop("probe") is None  # it knew no such key
    path.write_text(json.dumps(old))
    assert pretrain(config)["steps"] == 6
