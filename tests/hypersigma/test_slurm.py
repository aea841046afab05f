"""Batch scripts: what they ask for, that no name gets out of its quotes, and when they requeue."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from configs import CONFIG_DIR, ConfigError
from hypersigma.__main__ import app
from hypersigma.slurm import Allocation, batch_script

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "scripts/slurm").glob("*.sbatch"))
FOUR = Allocation(nodes=2, gpus_per_node=2, time="1:00:00")


def write(folder, script):
    path = folder / "job.sbatch"
    path.write_text(script)
    assert subprocess.run(["bash", "-n", path], capture_output=True).stderr == b""
    return path


def run(folder, script, *, srun):
    """Run a script with programs that note how they were called; `srun` is what that does."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    note = 'printf "%s\\0" "${0##*/}" "$@" >>calls; printf "\\n" >>calls\n'
    for name, body in (("srun", srun), ("scontrol", "")):
        (programs / name).write_text(f"#!/bin/bash\n{note}{body}\n")
        (programs / name).chmod(0o755)
    (folder / "calls").unlink(missing_ok=True)
    env = {"PATH": f"{programs}:{os.environ['PATH']}"}
    env |= {"SLURM_CPUS_PER_TASK": "2", "SLURM_JOB_ID": "42"}
    done = subprocess.run(
        ["bash", write(folder, script)], cwd=folder, env=env, capture_output=True, text=True
    )
    calls = (folder / "calls").read_text().splitlines()
    return done, [call.split("\0")[:-1] for call in calls]


def test_one_process_a_gpu_with_the_same_samples_a_step():
    script = batch_script(
        "pretrain/spatial_base", ["run=runs/try", "workers=6"],
        Allocation(4, 8, "1-00:00:00", partition="gpu", account="lab"),
    )  # fmt: skip
    lines = script.splitlines()
    for line in (
        "--job-name=try", "--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8",
        "--cpus-per-task=8", "--time=1-00:00:00", "--partition=gpu", "--account=lab", "--requeue",
        "--signal=USR1@120",
    ):  # fmt: skip
        assert f"#SBATCH {line}" in lines
    command = "pretrain pretrain/spatial_base run=runs/try workers=6"
    assert f"    hypersigma-train {command}" in lines
    assert "# Effective batch 2048: 64 samples x 32 processes x 1 a step." in lines


def test_directives_come_before_the_first_command():
    lines = batch_script("pretrain/spatial_base", [], FOUR).splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(n < first for n, line in enumerate(lines) if line.startswith("#SBATCH"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_what_the_command_writes(path, tmp_path):
    said = path.read_text().splitlines()[1].removeprefix("# hypersigma-train ")
    out = tmp_path / "job.sbatch"
    result = CliRunner().invoke(app, [*shlex.split(said), f"--out={out}"])
    assert result.exit_code == 0, result.stderr
    assert out.read_text() == path.read_text()
    assert "# Effective batch 2048: " in path.read_text()
    write(tmp_path, path.read_text())


def test_every_size_has_an_example():
    shipped = {path.stem for path in (CONFIG_DIR / "pretrain").glob("s*_*.yaml")}
    assert {path.stem for path in EXAMPLES} == shipped
    assert len(shipped) == 6


def test_prints_without_out():
    arguments = ["slurm", "pretrain/spatial_base", "seed=1"]
    arguments += ["--nodes=1", "--gpus-per-node=1", "--time=5"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "unknown key" in result.stderr
    arguments[2] = "train.seed=1"
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("#!/bin/bash\n# hypersigma-train slurm pretrain/spatial_base")


@pytest.mark.parametrize(
    "name", ["a b", "$(touch hacked)", "`touch hacked`", "'; touch hacked; '", 'a"b\\', "ü -x"]
)
def test_no_name_gets_out_of_its_quotes(tmp_path, name):
    folder = f"runs/{name}"
    override = f"run={json.dumps(folder)}"
    script = batch_script("pretrain/spatial_base", [override], FOUR)
    srun = f"mkdir -p {shlex.quote(folder)}; touch {shlex.quote(folder)}/resumable.json"
    done, calls = run(tmp_path, script, srun=srun)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "hacked").exists()
    assert calls == [
        ["srun", "--cpus-per-task=2", "--kill-on-bad-exit=1", "hypersigma-train", "pretrain",
         "pretrain/spatial_base", override],
        ["scontrol", "requeue", "42"],
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["run=a\n#SBATCH --account=other", "run=a\rb", "run=a\x1b[0m"])
def test_refuses_lines_in_names(word):
    with pytest.raises(ConfigError, match="one line each"):
        batch_script("pretrain/spatial_base", [word], FOUR)


def test_a_line_break_in_a_file_stays_in_its_quotes(tmp_path):
    config = tmp_path / "c.yaml"
    text = (CONFIG_DIR / "pretrain/spatial_base.yaml").read_text()
    config.write_text(text.replace("runs/spatial_base", '"a\\n#SBATCH --account=x\\nb"'))
    done, calls = run(tmp_path, batch_script(str(config), [], FOUR), srun="exit 3")
    assert [done.returncode, len(calls)] == [3, 1]
    lines = batch_script(str(config), [], FOUR).splitlines()
    first = lines.index("set -euo pipefail")
    assert not [line for line in lines[:first] if line.startswith("#SBATCH --account")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": 0}, "--nodes must be 1 or more, got 0"),
        ({"gpus_per_node": -1}, "--gpus-per-node must be 1 or more"),
        ({"time": "soon"}, "--time must be e.g. 12:00:00"),
        ({"time": "1:99"}, "--time"),
        ({"partition": "gpu --wrap=x"}, "--partition must be a name"),
        ({"account": "a\n#SBATCH --uid=root"}, "--account must be a name"),
        ({"account": "-x"}, "--account must be a name"),
        ({"nodes": 3}, "accumulate must be a multiple of the 6 processes"),
    ],
)
def test_refuses_what_sbatch_would_not_take(change, message):
    usual = {"nodes": 2, "gpus_per_node": 2, "time": "60"}
    with pytest.raises(ConfigError, match=message):
        batch_script("pretrain/spatial_base", [], Allocation(**usual | change))


@pytest.mark.parametrize("time", ["90", "90:00", "12:00:00", "2-0", "2-12:30", "7-00:00:00"])
def test_takes_the_times_of_sbatch(time):
    assert f"#SBATCH --time={time}\n" in batch_script(
        "pretrain/spatial_base", [], Allocation(1, 1, time)
    )


@pytest.mark.parametrize(
    ("srun", "code", "requeued"),
    [
        ("touch runs/x/summary.json; rm runs/x/resumable.json", 0, False),
        ("touch runs/x/resumable.json", 0, True),
        ("touch runs/x/resumable.json; exit 7", 7, False),
    ],
    ids=["finished", "told to stop", "failed"],
)
def test_requeues_a_run_that_was_told_to_stop(tmp_path, srun, code, requeued):
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/resumable.json").touch()
    script = batch_script("pretrain/spatial_base", ["run=runs/x"], FOUR)
    done, calls = run(tmp_path, script, srun=srun)
    assert (done.returncode, done.stderr) == (code, "")
    assert (["scontrol", "requeue", "42"] in calls) == requeued
