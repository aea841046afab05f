"""Register a dataset with a work pool, as `prefect.yaml` describes it, for workers to run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

import configs
import pipeline
from pipeline.build import DatasetConfig

DESCRIPTION = Path(pipeline.__file__).parents[1] / "prefect.yaml"


def deploy(config: str, overrides: list[str]) -> int:
    """Register the dataset of `config` on its schedule; return `prefect deploy`'s exit code.

    A file is registered by its full path, which must be there for the workers, too, as must all
    places in it. Doing it again replaces what was registered. A missing work pool is made.
    """
    if "PREFECT_API_URL" not in os.environ:
        sys.stderr.write("deploy needs a server: set PREFECT_API_URL to its address, .../api\n")
        return 1
    if not DESCRIPTION.is_file():
        sys.stderr.write(f"deploy needs {DESCRIPTION}: install the project from its checkout\n")
        return 1
    dataset = configs.load(DatasetConfig, config, overrides)
    if relative := _relative(dataset):
        sys.stderr.write(
            f"{config}: {', '.join(relative)}: expected full paths or URLs, since a worker runs "
            "in a folder of its own\n"
        )
        return 1
    _make_pool(_pool())
    path = str(Path(config).absolute()) if Path(config).is_file() else config
    described = {
        "DATASET_NAME": dataset.name, "DATASET_CONFIG": path, "DATASET_SCHEDULE": dataset.schedule,
    }  # fmt: skip
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    command += ["--prefect-file", str(DESCRIPTION)]
    command += ["--params", json.dumps({"overrides": overrides})] if overrides else []
    return subprocess.run(command, env={**os.environ, **described}, check=False).returncode


def _relative(dataset: DatasetConfig) -> list[str]:
    """Return the places of a dataset that depend on the folder that one is in."""
    names = ("source", "store", "shards", "report", "cache")
    places = {name: getattr(dataset, name) for name in names}
    if Path(dataset.recipe).is_file():
        places["recipe"] = dataset.recipe
    return [
        f"{name}={place}"
        for name, place in places.items()
        if place is not None and "://" not in str(place) and not Path(place).is_absolute()
    ]


def _pool() -> str:
    described = yaml.safe_load(DESCRIPTION.read_text(encoding="utf-8"))
    return str(described["deployments"][0]["work_pool"]["name"])


def _make_pool(name: str) -> None:
    """Make a pool of processes: a worker may ask for it before or after us."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        except ObjectAlreadyExists:
            return
