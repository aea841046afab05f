"""Small made scenes, and the commands that a user runs on them."""

import logging
from pathlib import Path

import pytest
import torch
import yaml

from tests.hypersigma.tasks.commands import TRAIN


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors gain nothing from a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_log_handlers(monkeypatch):
    """Commands log to the streams of their own call, which are closed after it."""
    monkeypatch.setattr(logging.root, "handlers", [])
    ours = logging.getLogger("hypersigma")
    levels = logging.root.level, ours.level
    yield
    logging.root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture
def scene(tmp_path):
    """Return a function that writes the YAML file of a made scene."""

    def write(kind: str, **numbers) -> Path:
        path = tmp_path / f"{kind}.yaml"
        made = {"kind": kind, "rows": 32, "columns": 32, "bands": 16, **numbers}
        path.write_text(yaml.safe_dump(
            {"title": kind, "task": "any", "where": "made here", "synthetic": made}
        ))  # fmt: skip
        return path

    return write


@pytest.fixture
def task_config(tmp_path):
    """Return a function that writes the YAML file of a run."""

    def write(task: str, data: Path, mode: str, **changes) -> Path:
        raw = {
            "run": str(tmp_path / "run"), "task": task, "data": str(data), "mode": mode,
            "size": "tiny", "patch_size": 4, "split": {"n_per_class": 8, "block": 10, "guard": 1},
            "options": {"window": 16, "overlap": 8}, "train": TRAIN, **changes,
        }  # fmt: skip
        path = tmp_path / "task.yaml"
        path.write_text(yaml.safe_dump(raw))
        return path

    return write
