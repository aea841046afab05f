"""`serve` runs the dataset on a cron schedule with a server of its own: each firing a version."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import yaml

import configs
from pipeline.build import DatasetConfig, scene_states
from pipeline.flows.server import quiet_defaults
from storage import store
from tests.pipeline import raw_products as raw

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

LONGEST_WAIT = 600
"""Seconds: a minute to the next cron line, the rest for the servers of a busy machine to start."""

ENTITIES = (raw.ENTITY, "EO1H1930252013205110KF")


@pytest.mark.parametrize("firings", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_each_firing_makes_a_version_of_what_is_new(firings, tmp_path, monkeypatch):
    config = {name: str(tmp_path / name) for name in ("store", "shards", "report")}
    config |= {"name": "d", "source": str(tmp_path / "raw"), "recipe": "reference"}
    file = tmp_path / "dataset.yaml"
    file.write_text(yaml.safe_dump({**config, "schedule": "* * * * *"}))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    quiet_defaults()
    made_at = {}
    with serving(file, {"PREFECT_HOME": str(tmp_path / "prefect")}) as served:
        for number in range(firings):
            add_product(tmp_path, number)
            version = f"v{number + 1}"
            wait_for(tmp_path / "report" / version / "report.json", served)
            states = scene_states(configs.load(DatasetConfig, file))
            made_at[version] = {state.product: state.at for state in states}
    repo = store.open_repository(config["store"])
    found = [version.tag for version in store.versions(repo)]
    assert found == [f"v{number + 1}" for number in range(firings)]
    for version in found:
        manifest = json.loads((tmp_path / "shards" / version / "manifest.json").read_text())
        assert manifest["version"] == version
    if firings == 2:
        difference = store.diff(repo, "v1", "v2")
        assert difference.scenes_added == (f"{ENTITIES[1]}_1T",)
        assert not difference.scenes_removed + difference.scenes_changed
        old = f"{ENTITIES[0]}_1T"
        assert made_at["v2"][old] == made_at["v1"][old]  # not made a second time
        assert set(made_at["v2"]) - set(made_at["v1"]) == {f"{ENTITIES[1]}_1T"}


def add_product(folder, number):
    """Add a whole product at once, as one must while somebody watches."""
    name, corner = f"{ENTITIES[number]}_1T", (362175 + 60_000 * number, 5809965)
    dn = raw.hyperion_dn(rows=140, cols=140, seed=number)
    made = raw.write_l1t(folder / name, dn, entity=ENTITIES[number], corner=corner)
    (folder / "raw").mkdir(exist_ok=True)
    made.rename(folder / "raw" / name)


@contextmanager
def serving(file, env):
    """`serve` in a process of its own, and Ctrl-C at the end."""
    served = subprocess.Popen(
        [sys.executable, "-m", "pipeline.flows", "serve", str(file)],
        env={**os.environ, **env},
        start_new_session=True,
        # A shell's background jobs ignore Ctrl-C, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield served
    finally:
        interrupt(served)


def interrupt(served):
    """Press Ctrl-C, and once more if a run was under way; nothing may outlive the test."""
    for patience in (90, 60):
        os.killpg(served.pid, signal.SIGINT)
        try:
            served.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
        return
    os.killpg(served.pid, signal.SIGKILL)
    served.wait()
    raise AssertionError("serve did not end after two interrupts")


def wait_for(file, served):
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline:
        assert served.poll() is None, "serve ended by itself"
        if file.exists():
            return
        time.sleep(1)
    raise AssertionError(f"no {file} after {LONGEST_WAIT} s")
