"""Dry runs: nothing is written, bytes are those of real runs, and what is in the way is said."""

import dataclasses
import json
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
import yaml
from torch import nn

from hypersigma import dryrun
from hypersigma.finetune import finetune
from hypersigma.pretrain import pretrain
from hypersigma.runfolder import TrainError
from hypersigma.trainconfig import TrainConfig
from storage.schema import SchemaError
from tests.hypersigma.engines.launching import job, together
from tests.hypersigma.runs.test_commands import call
from tests.integration.processes import environment, free_ports

PLAIN = TrainConfig(steps=100, batch_size=4)


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_writes_nothing(pretraining, finetuning, tmp_path, task):
    config, run = (pretraining(), pretrain) if task == "pretrain" else (finetuning(), finetune)
    before = tree(tmp_path)
    found = run(config, dry=True)
    assert tree(tmp_path) == before
    assert found["steps"]["done"] == 0
    assert found["problems"] == []
    run(config)
    before = tree(tmp_path)
    again = run(config, dry=True)
    assert tree(tmp_path) == before
    assert again["steps"]["done"] == config.train.steps
    assert again["time"]["left_s"] == 0


def test_time_to_finish_is_that_of_steps_and_looks(pretraining):
    config = pretraining(train={"steps": 1000, "eval_every": 300, "accumulate": 6})
    found = pretrain(config, dry=True)
    times = found["time"]
    assert times["left_s"] == pytest.approx(1000 * times["step_s"] + 3 * times["evaluation_s"])
    assert times["samples_per_s"] == pytest.approx(12 / times["step_s"])
    assert found["steps"]["samples"] == 12


def test_bytes_of_a_checkpoint_are_those_of_a_real_one(pretraining):
    config = pretraining(train={"steps": 2, "keep": 1})
    told = pretrain(config, dry=True)["disk_bytes"]
    assert told["needed"] == told["checkpoints"] * told["checkpoint"]
    pretrain(config)
    files = [path.stat().st_size for path in config.run.glob("checkpoints/**/*") if path.is_file()]
    assert told["checkpoint"] == pytest.approx(sum(files), rel=0.02)
    there = pretrain(config, dry=True)["disk_bytes"]
    assert there["needed"] == told["needed"] - sum(files)


@pytest.mark.parametrize(
    ("changes", "count"),
    [({"keep": 3}, 4), ({"keep": 1}, 2), ({"keep_every": 30}, 2 + 1 + 3)],
)
def test_checkpoints_that_lie_there_at_a_time(tmp_path, changes, count):
    config = dataclasses.replace(PLAIN, **changes)
    found = dryrun.disk(tmp_path / "not" / "there", 1000, config, best=False)
    assert (found["checkpoints"], found["needed"]) == (count, 1000 * count)
    assert dryrun.disk(tmp_path, 1000, config, best=True)["checkpoints"] == count + 1


@pytest.mark.parametrize(
    ("changes", "weights", "gradients", "moments"),
    [
        ({}, 220, 220, 440),
        ({"engine": "deepspeed", "zero": 0}, 220, 220, 440),
        ({"engine": "deepspeed", "zero": 1}, 220 + 55, 220, 110),
        ({"engine": "deepspeed", "zero": 2}, 220 + 55, 55, 110),
        ({"engine": "deepspeed", "zero": 3}, 55 + 55, 55, 110),
        ({"engine": "deepspeed", "zero": 1, "precision": "bf16"}, 110 + 55, 110, 110),
        ({"engine": "deepspeed", "zero": 2, "offload": True}, 220, 55, 0),
    ],
)
def test_memory_by_hand(changes, weights, gradients, moments):
    # 55 weights in float32, on one of 4 devices; what is frozen has no gradient.
    model, config = nn.Linear(10, 5), dataclasses.replace(PLAIN, **changes)
    found = dryrun.memory_by_component(model, config, 4)
    assert found == {"weights": weights, "gradients": gradients, "moments": moments}
    model.bias.requires_grad = False
    frozen = dryrun.memory_by_component(model, PLAIN, 4)
    assert frozen == {"weights": 220, "gradients": 200, "moments": 400}


def test_activations_are_what_the_backward_pass_needs():
    x = torch.ones(3, 4, requires_grad=True)
    with dryrun.saved_bytes(nn.Identity()) as saved:
        y = x.exp().exp()  # each keeps its result
    assert sum(saved.values()) == 2 * 3 * 4 * 4
    y.sum().backward()
    linear, x = nn.Linear(4, 5), torch.ones(3, 4)
    with dryrun.saved_bytes(linear) as saved:
        y = linear(x)  # keeps x; its weights are there anyway
    assert sum(saved.values()) == 3 * 4 * 4


def test_recomputing_takes_less_memory(pretraining):
    plain, less = (
        pretrain(pretraining(train={"recompute": flag}), dry=True)["memory_bytes"]["activations"]
        for flag in (False, True)
    )
    assert 0 < less < 0.6 * plain


def test_says_what_is_in_the_way():
    found = {
        "memory_bytes": {"sum": 3e9, "there": 2e9},
        "disk_bytes": {"needed": 5e9, "free": 4e6, "checkpoints": 3},
    }
    memory, space = dryrun.problems(found)
    assert "needs about 3.00 GB of memory, and the device has 2.00 GB" in memory
    assert "3 checkpoints need 5.00 GB more, and 4.0 MB are free" in space


def test_refuses_what_a_run_would(pretraining):
    with pytest.raises(SchemaError, match="bands must be from 1 to 20, got 22"):
        pretrain(pretraining(bands=22), dry=True)
    pretrain(pretraining(train={"steps": 2}))
    with pytest.raises(TrainError, match=r"train\.seed is 0 there and 1 here"):
        pretrain(pretraining(train={"steps": 2, "seed": 1}), dry=True)


def test_the_command_prints_a_table_and_fails_where_something_is_in_the_way(
    pretraining, tmp_path, monkeypatch
):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(job(pretraining())["config"]))
    result = call("pretrain", path, "--dry-run")
    assert result.exit_code == 0, result.stderr
    for text in ("6, 0 of them done", "memory: activations", "time to finish", "-bound: "):
        assert text in result.stdout
    usage = namedtuple("usage", "free")  # as of shutil
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(10))
    result = call("pretrain", path, "--dry-run", "--json")
    assert result.exit_code == 1
    assert "are free where the run is" in json.loads(result.stdout)["problems"][0]
    result = call("pretrain", path, "--dry-run")
    assert (result.exit_code, result.stdout.count("problem: ")) == (1, 1)


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
def test_processes_measure_together(pretraining, tmp_path, engine):
    config = pretraining(train={"accumulate": 8, "engine": engine, "zero": 2})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(job(config)["config"]))
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "hypersigma", "pretrain", str(path), "--dry-run", "--json"]
    started = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True,
            env=environment(OMP_NUM_THREADS="1", **together(rank, 2, port)),
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        first, second = (process.communicate(timeout=240)[0] for process in started)
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0]
    assert second == ""
    found = json.loads(first)
    assert (found["steps"]["samples"], found["steps"]["processes"]) == (16, 2)
    alone = pretrain(pretraining("alone", train={"accumulate": 8}), dry=True)
    share = 1 if engine == "ddp" else 2
    assert found["memory_bytes"]["moments"] == alone["memory_bytes"]["moments"] // share
    assert found["disk_bytes"]["checkpoint"] == alone["disk_bytes"]["checkpoint"]
    assert not config.run.exists()
