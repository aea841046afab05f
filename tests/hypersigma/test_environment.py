"""What a run's folder says of versions, GPUs and the state of the code."""

import json
import platform
import subprocess

import pytest
import torch

from hypersigma.environment import code, differences, environment, record

IDENTITY = {"data": {"version": "v1"}, "spectral": {"ahsi": {"band": [1, 2]}}, "config": {}}


@pytest.fixture
def checkout(tmp_path):
    """A folder under git, and a function that runs git in it."""

    def git(*arguments):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", tmp_path, *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "a.py").write_text("1\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "First")
    return tmp_path, git


def test_code_is_the_commit_and_whether_files_differ_from_it(checkout):
    folder, git = checkout
    commit = git("rev-parse", "HEAD")
    assert code(folder) == {"commit": commit, "changed": False}
    (folder / "notes.txt").write_text("not under git\n")
    assert code(folder) == {"commit": commit, "changed": False}
    (folder / "a.py").write_text("2\n")
    assert code(folder) == {"commit": commit, "changed": True}


def test_code_inside_a_checkout_of_something_else_is_unknown(checkout):
    folder, _ = checkout
    (folder / "site-packages").mkdir()
    unknown = {"commit": None, "changed": None}
    assert code(folder / "site-packages") == code(folder / "none") == unknown


def test_code_without_a_commit_or_without_git_is_unknown(tmp_path, checkout, monkeypatch):
    (tmp_path / "empty").mkdir()
    subprocess.run(["git", "init", "--quiet", tmp_path / "empty"], check=True)
    assert code(tmp_path / "empty")["commit"] is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code(checkout[0])["commit"] is None


def test_environment_names_versions_and_no_machine():
    found = environment()
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert platform.node() not in json.dumps(found)


def test_differences_name_what_was_and_what_is():
    there = {"python": "3.12.1", "packages": {"torch": "1", "timm": None}, "data": 1}
    here = {"python": "3.13.0", "packages": {"torch": "1", "timm": "2"}, "data": 2}
    assert differences(there, here) == [
        "packages.timm was None and is 2", "python was 3.12.1 and is 3.13.0",
    ]  # fmt: skip
    assert differences(here, here) == []


def test_is_written_once_and_compared_afterwards(tmp_path, caplog):
    record(tmp_path, IDENTITY)
    path = tmp_path / "environment.json"
    found = json.loads(path.read_text())
    assert (found["data"], found["spectral"]) == (IDENTITY["data"], IDENTITY["spectral"])
    record(tmp_path, IDENTITY)
    assert caplog.text == ""
    found["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(found))
    record(tmp_path, IDENTITY)
    assert "was begun in another environment: packages.torch was 1.0 and is 2." in caplog.text
    assert json.loads(path.read_text()) == found
