"""The commands of the how-tos run as they stand, in their order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run_page(page: Path, folder: Path) -> list[str]:
    """Write a page's files and run its `sh` blocks in `folder`; return the commands."""
    commands = []
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, file, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if file:
            (folder / file).write_text(text, encoding="utf-8")
        if language != "sh":
            continue
        for command in text.splitlines():
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            commands.append(command)
    return commands


@pytest.mark.slow
def test_build_a_dataset(tmp_path):
    commands = run_page(ROOT / "docs/build-a-dataset.md", tmp_path)
    assert len(commands) >= 10
    assert (tmp_path / "shards/manifest.json").is_file()
