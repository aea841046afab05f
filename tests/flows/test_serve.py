"""`serve` registers the build on a cron schedule with a server of its own, and it fires."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from pipeline.flows.server import quiet_defaults
from storage import store
from storage.schema import SchemaError
from tests.pipeline import raw_products as raw

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

LONGEST_WAIT = 240
"""Seconds: a minute to the next cron line, the rest for the servers to start."""


def test_a_scheduled_build_makes_a_version(tmp_path, monkeypatch):
    product = raw.write_l1t(tmp_path / "raw" / f"{raw.ENTITY}_1T")
    assert product.exists()
    config = {"name": "d", "source": str(tmp_path / "raw"), "store": str(tmp_path / "store")}
    file = tmp_path / "dataset.yaml"
    file.write_text(yaml.safe_dump({**config, "recipe": "reference", "schedule": "* * * * *"}))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    quiet_defaults()
    served = subprocess.Popen(
        [sys.executable, "-m", "pipeline.flows", "serve", str(file)],
        env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")},
        start_new_session=True,
        # A shell's background jobs ignore Ctrl-C, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert wait_for_version(config["store"], served) == "v1"
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


def wait_for_version(location, served):
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline:
        assert served.poll() is None, "serve ended by itself"
        time.sleep(1)
        try:
            found = store.versions(store.open_repository(location))
        except SchemaError:
            continue
        if found:
            return found[-1].tag
    raise AssertionError(f"no version after {LONGEST_WAIT} s")
