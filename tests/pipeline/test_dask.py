"""Scenes on Dask's workers, which are processes that may die."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import dask
import pytest
from distributed import Client, LocalCluster

import configs
from pipeline.build import DatasetConfig, build_dataset, scene_states
from storage.schema import SceneError
from tests.pipeline import fake_products as fake
from tests.pipeline import kills

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def cluster():
    options = {"dashboard_address": ":0", "preload": ["tests.pipeline.fake_products"]}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **options) as cluster:
        yield cluster


def world(folder, names, **more):
    folder.mkdir()
    for seed, name in enumerate(names):
        fake.write_product(folder / "raw", name, seed=seed, **more)
    return configs.load(DatasetConfig, fake.write_config(folder, folder / "store"))


@pytest.fixture
def builds(tmp_path, monkeypatch, cluster):
    """Build the same products here, and on the cluster while `meanwhile` goes on."""
    fake.install(monkeypatch.setattr)

    def run(names, meanwhile=None, **more):
        here, there = (world(tmp_path / place, names, **more) for place in ("here", "there"))
        build_dataset(here)
        if meanwhile is not None:
            meanwhile.start()
        there = configs.load(DatasetConfig, tmp_path / "there" / "dataset.yaml",
                             [f"dask={cluster.scheduler_address}"])  # fmt: skip
        report = build_dataset(there)
        if meanwhile is not None:
            meanwhile.join()
        return report, kills.contents(here.store), kills.contents(there.store)

    return run


def test_workers_make_the_same_version(builds):
    report, here, there = builds("abcde")
    assert (report.version, report.added, report.failures) == ("v1", tuple("abcde"), ())
    assert there == here


def test_a_worker_that_is_killed_costs_no_scene(builds, cluster):
    def kill():
        time.sleep(0.5)
        with Client(cluster) as client:
            pids = client.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGKILL)

    report, here, there = builds("abcdef", threading.Thread(target=kill), seconds=0.4)
    assert (len(report.added), report.failures) == (6, ())
    assert there == here


def test_a_bad_product_fails_alone_and_in_its_own_words(tmp_path, monkeypatch, cluster):
    fake.install(monkeypatch.setattr)
    world(tmp_path / "w", "ab")
    fake.write_product(tmp_path / "w" / "raw", "bad", error="a torn tape")
    config = configs.load(DatasetConfig, tmp_path / "w" / "dataset.yaml",
                          [f"dask={cluster.scheduler_address}"])  # fmt: skip
    report = build_dataset(config)
    assert (report.added, [bad.scene for bad in report.failures]) == (("a", "b"), ["bad"])
    assert report.failures[0].reason.startswith(str(tmp_path / "w" / "raw" / "bad"))
    assert "expected 242 bands, got a torn tape" in report.failures[0].reason
    assert json.loads(report.to_json())["tiles"] > 0
    assert issubclass(SceneError, ValueError)


def test_a_scheduler_that_is_not_there_is_named(tmp_path, monkeypatch):
    fake.install(monkeypatch.setattr)
    monkeypatch.setattr("pipeline.engines.CONNECT_SECONDS", 1)
    world(tmp_path / "w", "a")
    config = configs.load(
        DatasetConfig, tmp_path / "w" / "dataset.yaml", ["dask=tcp://127.0.0.1:9"]
    )
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9"):
        build_dataset(config)


def test_a_build_whose_workers_are_all_gone_ends_and_keeps_what_is_finished(tmp_path, monkeypatch):
    fake.install(monkeypatch.setattr)
    monkeypatch.setattr("pipeline.engines.WORKER_SECONDS", 2)
    monkeypatch.setattr("pipeline.engines._LOOK_SECONDS", 1)
    world(tmp_path / "w", "a")
    fake.write_product(tmp_path / "w" / "raw", "slow", seconds=60)
    options = {"dashboard_address": ":0", "preload": ["tests.pipeline.fake_products"]}
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, **options) as cluster:
        config = configs.load(DatasetConfig, tmp_path / "w" / "dataset.yaml",
                              [f"dask={cluster.scheduler_address}"])  # fmt: skip
        gone = threading.Timer(6, cluster.scale, [0])
        gone.start()
        with pytest.raises(TimeoutError, match="has had no worker for 2 s; finished scenes are"):
            build_dataset(config)
    states = {state.product: state.state for state in scene_states(config)}
    assert states == {"a": "new", "slow": "new"}


def test_a_scheduler_that_dies_ends_the_build(tmp_path, monkeypatch):
    fake.install(monkeypatch.setattr)
    world(tmp_path / "w", "a", seconds=60)
    command = [sys.executable, "-m", "dask"]
    address, run = "tcp://127.0.0.1:8798", partial(subprocess.Popen, stderr=subprocess.DEVNULL)
    preload = ["--preload", "tests.pipeline.fake_products"]
    with (
        run([*command, "scheduler", "--port", "8798", "--no-dashboard"]) as scheduler,
        run([*command, "worker", address, "--no-dashboard", *preload]) as worker,
        dask.config.set({"distributed.comm.timeouts.connect": "3s"}),
    ):
        config = configs.load(DatasetConfig, tmp_path / "w" / "dataset.yaml", [f"dask={address}"])
        threading.Timer(8, scheduler.kill).start()
        with pytest.raises(ConnectionError, match=f"the Dask scheduler at {address} is gone"):
            build_dataset(config)
        worker.kill()


def test_a_product_that_kills_its_workers_fails_alone(tmp_path, monkeypatch):
    fake.install(monkeypatch.setattr)
    # Or its nanny gives up, too.
    monkeypatch.setattr("pipeline.engines.WORKER_SECONDS", 15)
    monkeypatch.setattr("pipeline.engines._LOOK_SECONDS", 1)
    world(tmp_path / "w", "abcde", seconds=0.3)
    fake.write_product(tmp_path / "w" / "raw", "bad", kill=1)
    options = {"dashboard_address": ":0", "preload": ["tests.pipeline.fake_products"]}
    with (
        # So that one death is enough to blame all that the worker had.
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=2, processes=True, **options) as cluster,
    ):
        config = configs.load(DatasetConfig, tmp_path / "w" / "dataset.yaml",
                              [f"dask={cluster.scheduler_address}"])  # fmt: skip
        report = build_dataset(config)
    assert (report.added, [bad.scene for bad in report.failures]) == (tuple("abcde"), ["bad"])
    assert "bad: the workers that worked on it died" in report.failures[0].reason
    states = {state.product: state.state for state in scene_states(config)}
    assert states == {**dict.fromkeys("abcde", "done"), "bad": "failed"}
