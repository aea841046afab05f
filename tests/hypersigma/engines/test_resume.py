"""A run that is stopped in any way, and goes on with any engine, is the undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from hypersigma import checkpoint
from hypersigma.pretrain import pretrain
from hypersigma.runfolder import TrainError
from hypersigma.runlog import RunLog, read_metrics
from hypersigma.saving import Saver
from tests.integration.processes import ROOT, environment

from .launching import SECONDS, job, seen, trained, trainees

NUMBERS = ("loss", "grad_norm", "lr", "val_loss")


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.soak)])
def test_no_way_to_stop_a_run_changes_a_bit_of_it(pretraining, tmp_path, kills):
    rng = np.random.default_rng(kills)
    steps = 24 + 4 * kills
    train = {"steps": steps, "batch_size": 1, "accumulate": 2, "checkpoint_every": 3, "keep": 3}
    train |= {"eval_every": 10, "deterministic": True}
    whole, cut = (pretraining(name, bands=8, train=train) for name in ("whole", "cut"))
    trained(tmp_path / "whole_out", [whole], "--seen", tmp_path / "whole_seen")
    for number in range(kills):
        WAYS[number % len(WAYS)](cut, tmp_path, int(rng.integers(3, 8)))
    trained(tmp_path / "out", [cut], "--seen", tmp_path / "seen")
    assert seen(tmp_path / "seen") == seen(tmp_path / "whole_seen")
    assert len(seen(tmp_path / "seen")) == 2 * steps
    assert curves(cut) == curves(whole)
    assert files(cut) == files(whole)


def killed(config, folder, steps):
    """Kill a run at some instant after so many steps."""
    with running(config, folder) as process:
        wait_for_steps(config, steps, process)


def told_to_stop(config, folder, steps):
    """Send a run what a scheduler sends; it has then saved all that it made."""
    with running(config, folder) as process:
        wait_for_steps(config, steps, process)
        process.send_signal(signal.SIGTERM if steps % 2 else signal.SIGUSR1)
        assert process.wait(SECONDS) == 0, (folder / "cut_out/0.err").read_text()
    made = read_metrics(config.run)[-1]["step"]
    assert checkpoint.newest(config.run).state["step"] == made
    mark = json.loads((config.run / "resumable.json").read_text())
    assert (mark["step"], mark["resumable"]) == (made, True)


def without_room(config, folder, steps):
    """Kill a run that finds no room on the disk for its next two checkpoints."""
    before = checkpoint.newest(config.run).state["step"]
    full = [step for step in range(before + 1, before + 9) if step % 3 == 0]
    with running(config, folder, "--full", *full) as process:
        wait_for_steps(config, 7, process)
    assert f"no room for the checkpoint of step {full[0]}" in (folder / "cut_out/0.err").read_text()
    assert not (config.run / f"checkpoints/step-{full[0]:08d}").exists()
    assert checkpoint.newest(config.run).state["step"] == before


def torn(config, folder, steps):
    """Kill a run, and cut a file of its last checkpoint off."""
    killed(config, folder, steps)
    path = checkpoint.newest(config.run).folder / checkpoint.MOMENTS_FILE
    os.truncate(path, path.stat().st_size // 2)


WAYS = (killed, told_to_stop, without_room, torn)


@contextmanager
def running(config, folder, *options):
    """Return a context in which a run goes on slowly, and that kills it; yields its process."""
    more = ("--seen", folder / "seen", "--pause", 0.02, *options)
    with trainees(folder / "cut_out", [config], *more) as (process,):
        yield process


def wait_for_steps(config, steps, process):
    """Wait until a run that was just started has made so many steps."""
    began, begin = time.time(), checkpoint.newest(config.run)
    begin = begin.state["step"] if begin else 0
    deadline = time.monotonic() + SECONDS
    while last_step(config, began) < begin + steps and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.poll() is None, "ended before it could be stopped"


def last_step(config, began):
    """Return the last step of the log, 0 if it is still that of the run before."""
    log = config.run / "metrics.jsonl"
    records = read_metrics(config.run) if log.exists() and log.stat().st_mtime > began else []
    return records[-1]["step"] if records else 0


def curves(config):
    return {name: [r.get(name) for r in read_metrics(config.run)] for name in NUMBERS}


def files(config):
    folder = checkpoint.newest(config.run).folder
    names = (checkpoint.MODEL_FILE, checkpoint.MOMENTS_FILE)
    return [(folder / name).read_bytes() for name in names]


def test_a_run_that_is_told_to_stop_before_it_begins_stops_at_its_first_step(pretraining, tmp_path):
    config = pretraining(train={"steps": 40})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(job(config)["config"]))
    command = [sys.executable, "-m", "hypersigma", "pretrain", path]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + SECONDS
        while not catches(process.pid, signal.SIGUSR1):
            assert time.monotonic() < deadline
        assert not config.run.exists()
        process.send_signal(signal.SIGUSR1)
        _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said.decode()
    assert json.loads((config.run / "resumable.json").read_text())["step"] == 1


def catches(pid, number):
    """Say whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return int(caught.split()[1], 16) >> (number - 1) & 1


@pytest.mark.soak
def test_torchrun_stops_with_all_its_workers_and_goes_on(pretraining, tmp_path):
    train = {"steps": 40, "accumulate": 2, "checkpoint_every": 100}
    config = pretraining("cut", train=train, workers=1)
    with torchrun(config, tmp_path) as process:
        wait_for_steps(config, 3, process)
        # A scheduler signals every process, those that read as well.
        for one in psutil.Process(process.pid).children(recursive=True):
            one.send_signal(signal.SIGUSR1)
        assert process.wait(SECONDS) == 0, (tmp_path / "torchrun.log").read_text()
    made = read_metrics(config.run)[-1]["step"]
    assert made < 40
    assert checkpoint.newest(config.run).state["step"] == made
    with torchrun(config, tmp_path) as process:
        assert process.wait(SECONDS) == 0, (tmp_path / "torchrun.log").read_text()
    assert [record["step"] for record in read_metrics(config.run)] == list(range(1, 41))
    whole = pretraining("whole", train=train)
    pretrain(whole)
    np.testing.assert_allclose(curves(config)["loss"], curves(whole)["loss"], rtol=1e-5)


@contextmanager
def torchrun(config, folder):
    """Run the command by two processes that torchrun starts; yields torchrun."""
    path, log = folder / "config.yaml", folder / "torchrun.log"
    path.write_text(yaml.safe_dump(job(config)["config"]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "hypersigma", "pretrain", path]
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, stdout=output, stderr=output, cwd=ROOT,
            env=environment(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo"),
        ) as process,
    ):  # fmt: skip
        family = []
        try:
            yield process
        finally:
            with suppress(psutil.NoSuchProcess):
                family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.kill()


@pytest.mark.soak
def test_goes_on_with_two_processes_one_and_two(pretraining, tmp_path):
    train = {"steps": 12, "accumulate": 2, "eval_every": 6}
    whole, cut = pretraining("whole", train=train), pretraining("cut", train=train)
    trained(tmp_path / "whole_out", [whole], "--seen", tmp_path / "whole_seen")
    see = ("--seen", tmp_path / "seen")
    zero3 = pretraining("cut", train=train | {"engine": "deepspeed", "zero": 3})
    trained(tmp_path / "two", [zero3], *see, "--stop", 4, processes=2)
    trained(tmp_path / "one", [cut], *see, "--stop", 8)
    trained(tmp_path / "two", [zero3], *see, processes=2)
    assert len(read_metrics(cut.run)) == 12
    assert seen(tmp_path / "seen") == seen(tmp_path / "whole_seen")
    ours, theirs = curves(cut), curves(whole)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)


def test_a_last_checkpoint_without_room_fails_in_words_and_goes_on_later(pretraining, monkeypatch):
    config = pretraining(train={"steps": 4, "checkpoint_every": 2})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_tensors", no_room_from(checkpoint.write_tensors, "4"))
        with pytest.raises(TrainError, match="step 4, the last one, found no room on the disk"):
            pretrain(config)
    assert [path.name for path in (config.run / "checkpoints").iterdir()] == ["step-00000002"]
    assert pretrain(config)["steps"] == 4


def test_a_first_checkpoint_without_room_stops_the_run(pretraining, monkeypatch):
    monkeypatch.setattr(checkpoint, "write_tensors", no_room_from(checkpoint.write_tensors, "0"))
    with pytest.raises(TrainError, match=r"a checkpoint could not be written: .*No space left"):
        pretrain(pretraining(train={"steps": 4, "checkpoint_every": 2}))


def test_a_log_without_room_stops_no_run(pretraining, monkeypatch, caplog):
    write = RunLog.write

    def full(self, step, record):
        if step in (2, 3):
            raise OSError(28, "No space left on device")
        write(self, step, record)

    monkeypatch.setattr(RunLog, "write", full)
    config = pretraining(train={"steps": 5})
    assert pretrain(config)["steps"] == 5
    assert caplog.text.count("no room for the log of step 2") == 1
    assert "log of step 3" not in caplog.text
    assert [record["step"] for record in read_metrics(config.run)] == [1, 4, 5]


def no_room_from(write, step):
    def full(path, tensors):
        if f"-0000000{step}/" in str(path):
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        return write(path, tensors)

    return full


def test_what_a_thread_cannot_write_stops_the_run(tmp_path):
    with Saver(tmp_path / "file", keep=1) as saver:
        (tmp_path / "file").write_text("in the way")
        saver.save(checkpoint.Tensors({}, {}), {"step": 1})
        with pytest.raises(TrainError, match="could not be written"):
            saver.wait()
