"""A scheduled dataset through all services: S3, PostgreSQL, Prefect and its worker, Dask."""

import subprocess
import time
from contextlib import contextmanager

import pytest
import yaml
from distributed import Client

from pipeline.states import States
from storage import store
from storage.shardset import open_shards
from tests.integration.processes import environment
from tests.integration.services import postgres_programs
from tests.pipeline import raw_products as raw

pytestmark = [pytest.mark.soak, pytest.mark.prefect]

LONGEST_WAIT = 180
"""Seconds: a minute to the next cron line, the rest for a run to start on two cores."""

ENTITIES = (raw.ENTITY, "EO1H1930252013205110KF")
SCENES = tuple(f"{entity}_1T" for entity in ENTITIES)


def test_two_firings_make_two_versions_the_second_of_what_is_new(
    services, location, compose, postgres, tmp_path
):
    file = tmp_path / "dataset.yaml"
    settings = {name: str(tmp_path / name) for name in ("shards", "report")}
    settings |= {"name": "through-all", "source": str(tmp_path / "raw"), "store": location}
    settings |= {"recipe": "reference", "schedule": "* * * * *"}
    file.write_text(yaml.safe_dump(settings))
    add_product(tmp_path, 0)
    with deployed(file, services):
        wait_for(tmp_path / "report/v1/report.json")
        made_at = States(location)[SCENES[0]].at
        add_product(tmp_path, 1)
        wait_for(tmp_path / "report/v2/report.json")
        wait_for_runs(compose, postgres, 2)
    repo = store.open_repository(location)
    assert [version.tag for version in store.versions(repo)] == ["v1", "v2"]
    difference = store.diff(repo, "v1", "v2")
    assert difference.scenes_added == SCENES[1:]
    assert not difference.scenes_removed + difference.scenes_changed
    assert States(location)[SCENES[0]].at == made_at  # not made a second time
    for version in ("v1", "v2"):
        shards = open_shards(tmp_path / "shards" / version, verify=True)
        assert shards.manifest["version"] == version
    with Client(services.env["DASK_SCHEDULER_ADDRESS"]) as client:
        assert "on_worker" in client.run_on_scheduler(task_names)


@contextmanager
def deployed(file, services):
    """Register the dataset as a person would, and take it back, or it fires under other tests."""
    run(["hypersigma-data", "deploy", str(file)], services)
    try:
        yield
    finally:
        run(["prefect", "--no-prompt", "deployment", "delete", "dataset/through-all"], services)


def run(command, services):
    env = environment(**services.env)
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def add_product(folder, number):
    """Add a whole product at once, as one must while somebody watches."""
    corner = (362175 + 60_000 * number, 5809965)
    dn = raw.hyperion_dn(rows=140, cols=140, seed=number)
    made = raw.write_l1t(folder / SCENES[number], dn, entity=ENTITIES[number], corner=corner)
    (folder / "raw").mkdir(exist_ok=True)
    made.rename(folder / "raw" / SCENES[number])


def wait_for(file):
    deadline = time.monotonic() + LONGEST_WAIT
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file} after {LONGEST_WAIT} s"
        time.sleep(1)


def wait_for_runs(compose, postgres, count):
    deadline = time.monotonic() + LONGEST_WAIT
    while len(found := completed_runs(compose, postgres)) < count:
        assert time.monotonic() < deadline, f"completed runs in PostgreSQL: {found}"
        time.sleep(1)


def task_names(dask_scheduler):
    return list(dask_scheduler.task_prefixes)


def completed_runs(compose, port):
    """Ask PostgreSQL itself which runs of the flow were completed."""
    settings = compose["services"]["postgres"]["environment"]
    query = (
        "select flow_run.name from flow_run join flow on flow.id = flow_run.flow_id "
        "where flow.name = 'dataset' and state_type = 'COMPLETED'"
    )
    asked = subprocess.run(
        [
            f"{postgres_programs()}/psql", "--host=127.0.0.1", f"--port={port}",
            f"--username={settings['POSTGRES_USER']}", settings["POSTGRES_DB"],
            "--tuples-only", f"--command={query}",
        ],
        env=environment(PGPASSWORD=settings["POSTGRES_PASSWORD"]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return asked.stdout.split()
