"""What a test starts ends with it, even if the test itself is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.processes import ROOT, environment, free_ports, running

LEFT_ALONE = """
import sys, time
from pathlib import Path
from tests.integration.processes import environment, running
with running("child", ["sleep", "600"], lambda: True, folder=Path(), env=environment()) as child:
    print(child.pid, flush=True)
    time.sleep(600)
"""


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_program_ends_with_the_context_and_takes_its_children_along(tmp_path):
    script = "sleep 600 & echo $! > child; trap '' TERM; wait; sleep 600"
    child = tmp_path / "child"
    with running(
        "stubborn",
        ["bash", "-c", script],
        lambda: child.exists() and bool(child.read_text()),
        folder=tmp_path,
        env=environment(),
        stop=signal.SIGKILL,
    ) as process:
        pid = int(child.read_text())
        assert is_running(process.pid)
        assert is_running(pid)
    assert not is_running(process.pid)
    wait_for(lambda: not is_running(pid))


def test_a_program_ends_with_a_killed_caller(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", LEFT_ALONE], env=environment(), cwd=tmp_path, stdout=subprocess.PIPE
    ) as caller:
        pid = int(caller.stdout.readline())
        assert is_running(pid)
        os.kill(caller.pid, signal.SIGKILL)
    wait_for(lambda: not is_running(pid))


def test_one_that_does_not_start_shows_its_log(tmp_path):
    command = ["bash", "-c", "echo no disk left; exit 3"]
    with (
        pytest.raises(RuntimeError, match=r"objects ended by itself \(exit code 3\)[^$]*no disk"),
        running("objects", command, lambda: False, folder=tmp_path, env=environment()),
    ):
        raise AssertionError("it is not healthy")


def test_ports_are_different_and_keys_of_the_caller_are_not_passed_on(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    monkeypatch.setenv("PREFECT_API_URL", "https://somewhere")
    assert len(set(free_ports(20))) == 20
    env = environment(A="1")
    assert env["A"] == "1"
    assert env["PYTHONPATH"] == str(ROOT)
    assert not {"AWS_SECRET_ACCESS_KEY", "PREFECT_API_URL"} & set(env)
