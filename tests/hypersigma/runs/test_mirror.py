"""Copies of checkpoints elsewhere, from which a run goes on when its folder is lost."""

import json
import logging
import shutil

import pytest

from hypersigma import checkpoint
from hypersigma.mirror import Mirror
from hypersigma.pretrain import pretrain
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
    assert [record["step"] for record in read_metrics(config.run)] == [5, 6, 7, 8]
    ends = [checkpoint.newest(one.run).folder / checkpoint.MODEL_FILE for one in (whole, config)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    # What was removed here is removed there.
    assert steps(tmp_path / "mirror") == steps(config.run / "checkpoints")
    assert not list(config.run.glob("checkpoints/step-*/.unfinished"))


def lost_after(step, monkeypatch, config):
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
            pretrain(config)


def test_a_torn_copy_is_passed_over(tmp_path, monkeypatch, cut, caplog):
    config = cut(8)
    lost_after(4, monkeypatch, config)
    shutil.rmtree(config.run)
    (tmp_path / "mirror/step-00000004" / checkpoint.MODEL_FILE).write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        Mirror(config.run, str(tmp_path / "mirror")).fetch()
    assert "torn" in caplog.text
    assert steps(config.run / "checkpoints") == ["step-00000002"]
    (tmp_path / "mirror/step-00000002" / checkpoint.STATE_FILE).unlink()  # still being sent
    shutil.rmtree(config.run)
    Mirror(config.run, str(tmp_path / "mirror")).fetch()
    assert steps(config.run / "checkpoints") == []


def test_what_is_newer_here_stays(tmp_path, monkeypatch, cut):
    config = cut(8)
    lost_after(4, monkeypatch, config)
    newest = config.run / "checkpoints/step-00000004"
    shutil.rmtree(tmp_path / "mirror/step-00000004")
    Mirror(config.run, str(tmp_path / "mirror")).fetch()
    assert checkpoint.newest(config.run).folder == newest


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
