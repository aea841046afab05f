"""The commands of the how-tos run as they stand, in their order."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer.main

from hypersigma.__main__ import app as train
from pipeline.__main__ import app as data

ROOT = Path(__file__).parents[1]
EXCERPT = re.compile(r"^```text in=(\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)

PROGRAMS = {"hypersigma-data": data, "hypersigma-train": train}
KEPT = 2
"""Commands of pages that begin alike: scenes, and a store of them."""


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


def run_page(page: Path, folder: Path, kept: Path | None = None) -> list[str]:
    """Write a page's files and run its `sh` blocks in `folder`; return the commands.

    Files of the project are not written: they must be as the page shows them.

    Args:
        page: Of docs/.
        folder: Empty.
        kept: Where the folder is kept as it is after the first commands, for other pages that begin
            with the same commands and files.
    """
    commands: list[str] = []
    written: dict[str, str] = {}
    done_before = ""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["PREFECT_HOME"] = str(folder / ".prefect")
    environment.pop("PREFECT_API_URL", None)
    for language, file, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if file and (ROOT / file).is_file():
            assert (ROOT / file).read_text(encoding="utf-8") == text, f"{page} shows another {file}"
        elif file:
            (folder / file).write_text(text, encoding="utf-8")
            written[file] = text
        if language != "sh":
            continue
        for command in text.splitlines():
            done_before += f"{sorted(written.items())} {command}\n"
            state = kept / hashlib.sha256(done_before.encode()).hexdigest() if kept else None
            if state and len(commands) < KEPT and state.is_dir():
                shutil.rmtree(folder)
                shutil.copytree(state, folder)
                commands.append(command)
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            commands.append(command)
            if state and len(commands) <= KEPT:
                shutil.copytree(folder, state)
    return commands


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_commands_of_all_pages_are_taken(page):
    """What runs is a soak for most pages; that no option is misspelt is looked at each time."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = [line for language, _, block in BLOCK.findall(text) if language == "sh"
             for line in block.splitlines()]  # fmt: skip
    for line in lines:
        program, *arguments = shlex.split(line)
        if program not in PROGRAMS:
            continue
        command = typer.main.get_command(PROGRAMS[program])
        while hasattr(command, "commands"):
            name, *arguments = arguments
            command = command.commands[name]
        with click.Context(command) as context:
            assert command.parse_args(context, arguments) == [], line


@pytest.mark.slow
def test_build_a_dataset(tmp_path, kept):
    commands = run_page(ROOT / "docs/build-a-dataset.md", tmp_path, kept)
    assert len(commands) >= 10
    assert (tmp_path / "shards/manifest.json").is_file()


@pytest.mark.soak
def test_catalogue(tmp_path, kept):
    commands = run_page(ROOT / "docs/catalogue.md", tmp_path, kept)
    assert len(commands) >= 10
    assert (tmp_path / "card/index.html").is_file()


@pytest.mark.soak
def test_shards(tmp_path, kept):
    commands = run_page(ROOT / "docs/shards.md", tmp_path, kept)
    assert len(commands) >= 10
    assert (tmp_path / "v2/manifest.json").is_file()
    assert any(path.stat().st_nlink > 1 for path in (tmp_path / "again").rglob("*.tar"))


@pytest.mark.slow
def test_import(tmp_path):
    commands = run_page(ROOT / "docs/import.md", tmp_path)
    assert len(commands) == 4
    assert (tmp_path / "halves/manifest.json").is_file()


@pytest.mark.slow
def test_published_weights(tmp_path):
    commands = run_page(ROOT / "docs/published-weights.md", tmp_path)
    assert len(commands) == 2
    assert (tmp_path / "weights.pth").is_file()


@pytest.mark.soak
def test_splits(tmp_path, kept):
    commands = run_page(ROOT / "docs/splits.md", tmp_path, kept)
    assert len(commands) == 9
    assert json.loads((tmp_path / "certificate.json").read_text())["passed"]


def test_each_scene_is_named():
    text = (ROOT / "docs/benchmark.md").read_text()
    names = {path.stem for path in (ROOT / "configs/data").glob("*.yaml")}
    assert names
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.soak
def test_benchmark(tmp_path):
    commands = run_page(ROOT / "docs/benchmark.md", tmp_path)
    assert len(commands) == 3
    text = (tmp_path / "tables/results.md").read_text()
    assert all(f"| {name} |" in text for name in ("svm", "cnn_1d", "HyperSIGMA tiny spatial"))
    assert len(list((tmp_path / "tables/cells").iterdir())) == 6


@pytest.mark.soak
def test_train(tmp_path):
    """Of the page's commands those that need no model of a whole demo."""
    for command in (
        "synth demo/raw --scenes 4 --seed 7", "build dataset/demo", "shards demo/store demo/shards",
    ):  # fmt: skip
        data = [Path(sys.executable).with_name("hypersigma-data"), *command.split()]
        subprocess.run(data, cwd=tmp_path, check=True, capture_output=True)
    text = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    begin, end = text.index("## Pretrain\n"), text.index("## Fine-tune a classifier\n")
    (tmp_path / "page.md").write_text(text[begin:end], encoding="utf-8")
    assert len(run_page(tmp_path / "page.md", tmp_path)) == 4
    assert (tmp_path / "runs/spectral/report.html").is_file()
    assert not (tmp_path / "runs/later").exists()


@pytest.mark.soak
def test_maps(tmp_path):
    assert len(run_page(ROOT / "docs/maps.md", tmp_path)) == 5
    assert (tmp_path / "map/scene_segmentation_probability.tif").is_file()


@pytest.mark.slow
def test_slurm(tmp_path):
    assert len(run_page(ROOT / "docs/slurm.md", tmp_path)) == 1
    assert "#SBATCH --partition=gpu\n" in (tmp_path / "job.sbatch").read_text()


@pytest.mark.soak
@pytest.mark.prefect
def test_schedule(tmp_path):
    commands = run_page(ROOT / "docs/schedule.md", tmp_path)
    assert len(commands) == 5
    assert (tmp_path / "report/v1/index.html").is_file()
    assert not (tmp_path / "report/v2").exists()


@pytest.mark.slow
def test_add_a_sensor(tmp_path):
    page = ROOT / "docs/add-a-sensor.md"
    commands = run_page(page, tmp_path)
    assert len(commands) == 4
    assert (tmp_path / "store").is_dir()
    text = page.read_text(encoding="utf-8")
    lines = 0
    for file, shown in EXCERPT.findall(text):
        code = (ROOT / file).read_text(encoding="utf-8").splitlines()
        for line in shown.splitlines():
            assert line in code, f"{page} shows a line that {file} has not: {line}"
            lines += 1
    shown = [code for _, file, code in BLOCK.findall(text) if file.startswith("pipeline/")]
    lines += sum(code.count("\n") for code in shown)
    assert len(shown) == 2
    assert lines < 150, lines
