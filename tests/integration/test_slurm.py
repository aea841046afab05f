"""A real SLURM: what processes are told, and batch scripts that are preempted, stopped, cancelled.

The scripts are those of `hypersigma-train slurm`. In some a stand-in trains: it says what signals
it got and saves a second later, as the trainer does at the end of its step.
"""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hypersigma.launch import from_environment
from hypersigma.runlog import read_metrics
from hypersigma.slurm import Allocation, batch_script
from tests.integration.processes import environment

SECONDS = 300
STAND_IN = """\
#!/usr/bin/env python3
import os, pathlib, signal, sys, time

rank, turn = os.environ["SLURM_PROCID"], os.environ.get("SLURM_RESTART_COUNT", "0")
mark = pathlib.Path("runs/x/resumable.json")
mark.parent.mkdir(parents=True, exist_ok=True)
got = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: got.append(signal.Signals(number).name))
print("began", rank, turn, *sys.argv[1:], flush=True)
while not got:
    if turn == "1":
        mark.unlink(missing_ok=True)
        sys.exit()
    time.sleep(0.05)
time.sleep(1)
mark.touch()
print("saved", rank, turn, got[0], flush=True)
"""


@dataclass(frozen=True)
class Queue:
    """SLURM, for the jobs of one test."""

    env: dict[str, str]
    folder: Path

    def do(self, *command):
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=2 * SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def submit(self, script):
        (self.folder / "job.sbatch").write_text(script)
        return self.do("sbatch", "--parsable", "job.sbatch")

    def state(self, job):
        shown = self.do("scontrol", "--oneliner", "show", "job", job)
        return dict(word.partition("=")[::2] for word in shown.split())["JobState"]

    def wait_for(self, check, what):
        deadline = time.monotonic() + SECONDS
        while not check():
            assert time.monotonic() < deadline, f"no {what}; {self.output()}"
            time.sleep(0.1)

    def wait_for_state(self, job, state):
        self.wait_for(lambda: self.state(job) == state, state)

    def wait_for_lines(self, *lines):
        self.wait_for(lambda: set(lines) <= set(self.output().splitlines()), lines)

    def output(self):
        return "".join(path.read_text() for path in self.folder.glob("x-*.out"))


@pytest.fixture
def queue(slurm, tmp_path):
    """SLURM; its jobs end with the test."""
    env = environment(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo", **slurm)
    found = Queue(env, tmp_path)
    yield found
    subprocess.run(["scancel", "--name=x"], env=env, check=True)
    left = ["squeue", "--noheader", "--name=x"]
    found.wait_for(lambda: not found.do(*left), "end of all jobs")


@pytest.fixture
def stand_in(queue):
    """The stand-in on the PATH of jobs."""
    programs = queue.folder / "programs"
    programs.mkdir()
    (programs / "hypersigma-train").write_text(STAND_IN)
    (programs / "hypersigma-train").chmod(0o755)
    queue.env["PATH"] = f"{programs}:{queue.env['PATH']}"


@pytest.fixture
def job(queue, stand_in):
    """A job of two processes, both at work."""
    allocation = Allocation(nodes=1, gpus_per_node=2, time="10:00", partition="low")
    number = queue.submit(batch_script("pretrain/spatial_base", ["run=runs/x"], allocation))
    called = "pretrain pretrain/spatial_base run=runs/x"
    queue.wait_for_lines(f"began 0 0 {called}", f"began 1 0 {called}")
    return number


def test_processes_are_told_who_they_are(queue):
    shown = queue.do("srun", "--ntasks=2", "--label", "env")
    told = [
        dict(
            line.split(": ", 1)[1].partition("=")[::2]
            for line in shown.splitlines()
            if line.startswith(f"{rank}: ")
        )
        for rank in (0, 1)
    ]
    assert [one["SLURM_PROCID"] for one in told] == ["0", "1"]
    places = [from_environment(one) for one in told]
    assert [(place.rank, place.local_rank, place.world) for place in places] == [
        (0, 0, 2), (1, 1, 2),
    ]  # fmt: skip
    assert places[0].address == places[1].address == told[0]["SLURMD_NODENAME"]
    assert places[0].port == places[1].port > 0


def test_a_job_that_is_queued_again_saves_and_goes_on(queue, job):
    queue.do("scontrol", "requeue", job)
    queue.wait_for_state(job, "COMPLETED")
    assert {"saved 0 0 SIGTERM", "saved 1 0 SIGTERM"} <= set(queue.output().splitlines())
    assert queue.output().count("began") == 4


def test_a_job_that_another_one_preempts_saves_and_goes_on(queue, job):
    queue.do("srun", "--partition=high", "--ntasks=1", "--gpus-per-node=2", "true")
    queue.wait_for_state(job, "COMPLETED")
    assert {"saved 0 0 SIGTERM", "saved 1 0 SIGTERM"} <= set(queue.output().splitlines())
    assert queue.output().count("began") == 4


def test_a_job_whose_time_is_nearly_up_saves_and_queues_itself_again(queue, stand_in):
    # SLURM looks at times every 30 s or so: a limit below the notice is up at the first look.
    allocation = Allocation(nodes=1, gpus_per_node=2, time="2:00")
    job = queue.submit(batch_script("pretrain/spatial_base", ["run=runs/x"], allocation))
    queue.wait_for_lines("saved 0 0 SIGUSR1", "saved 1 0 SIGUSR1")
    queue.wait_for_state(job, "COMPLETED")
    assert queue.output().count("began") == 4


def test_a_job_that_is_cancelled_saves_and_stays_so(queue, job):
    queue.do("scancel", job)
    queue.wait_for_lines("saved 0 0 SIGTERM", "saved 1 0 SIGTERM")
    queue.wait_for_state(job, "CANCELLED")
    assert not queue.do("squeue", "--noheader", f"--jobs={job}")


@pytest.mark.soak
def test_a_training_that_is_queued_again_goes_on_as_if_it_had_not_been(queue, world):
    config = {
        "shards": str(world.shards), "kind": "spatial", "size": "tiny", "bands": 16,
        "train": {
            "steps": 120, "batch_size": 1, "accumulate": 2, "device": "cpu", "eval_every": 120,
            "checkpoint_every": 50,
        },
    }  # fmt: skip
    path = queue.folder / "config.yaml"
    path.write_text(yaml.safe_dump({"run": "runs/x", **config}))
    whole = queue.folder / "runs/whole"
    queue.do("srun", "--ntasks=2", "hypersigma-train", "pretrain", path, "run=runs/whole")
    assert json.loads((whole / "summary.json").read_text())["steps"] == 120

    cut = queue.folder / "runs/x"
    script = batch_script(str(path), [], Allocation(nodes=1, gpus_per_node=2, time="10:00"))
    job = queue.submit(script)
    queue.wait_for(lambda: len(read_metrics(cut)) > 10, "steps")
    queue.do("scontrol", "requeue", job)
    queue.wait_for((cut / "resumable.json").exists, "mark of a run that can go on")
    step = json.loads((cut / "resumable.json").read_text())["step"]
    assert 10 < step < 120
    queue.wait_for_state(job, "COMPLETED")
    assert f"goes on from runs/x/checkpoints/step-{step:08d}" in queue.output()
    assert "SIGTERM: finishing this step and saving" in queue.output()
    found = [[(one["step"], one["loss"]) for one in read_metrics(run)] for run in (whole, cut)]
    assert [step for step, _ in found[1]] == list(range(1, 121))
    assert found[0] == found[1]
