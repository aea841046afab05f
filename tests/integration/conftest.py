"""Servers for all tests of this folder, each started once, when a test first asks for it."""

from dataclasses import dataclass

import pytest

from scripts.make_env import new_values
from tests import compose as compose_file
from tests.hypersigma.runs.conftest import world
from tests.integration import services as by_hand
from tests.integration import slurm as slurm_by_hand

__all__ = ["world"]


@dataclass(frozen=True)
class Services:
    """Everything of docker-compose.yml that a build needs."""

    env: dict[str, str]
    """What a subprocess needs to reach it all, beside PATH and the like."""

    bucket: str
    pool: str
    """The work pool whose runs a Prefect worker starts."""


@pytest.fixture(scope="package")
def compose():
    """The compose file with fresh keys and passwords."""
    return compose_file.filled(new_values())


@pytest.fixture(scope="package")
def objects(compose, tmp_path_factory):
    """SeaweedFS; the variables by which our programs reach it."""
    with by_hand.objects(compose, tmp_path_factory.mktemp("objects")) as env:
        yield env


@pytest.fixture(scope="package")
def postgres(compose):
    """PostgreSQL's port."""
    with by_hand.postgres(compose) as port:
        yield port


@pytest.fixture(scope="package")
def prefect_server(compose, postgres, tmp_path_factory):
    """Prefect's server on PostgreSQL; the variables by which clients reach it."""
    folder = tmp_path_factory.mktemp("prefect")
    with by_hand.prefect_server(compose, folder, postgres) as env:
        yield env


@pytest.fixture(scope="package")
def dask_cluster(compose, objects, tmp_path_factory):
    """A Dask scheduler and two workers of one thread; the scheduler's address."""
    with by_hand.dask_cluster(compose, tmp_path_factory.mktemp("dask"), objects) as env:
        yield env


@pytest.fixture(scope="package")
def services(compose, objects, prefect_server, dask_cluster, tmp_path_factory):
    """All of them at once, and a Prefect worker that reaches them."""
    env = {**objects, **prefect_server, **dask_cluster}
    folder = tmp_path_factory.mktemp("worker")
    with by_hand.prefect_worker(compose, folder, env) as pool:
        yield Services(env, by_hand.bucket(compose), pool)


@pytest.fixture(scope="package")
def slurm():
    """SLURM with one node; the variables by which its commands reach it."""
    with slurm_by_hand.cluster() as env:
        yield env


@pytest.fixture
def location(compose, objects, monkeypatch, request):
    """A place of the test's own in the object store, which this process can reach too."""
    for name, value in objects.items():
        monkeypatch.setenv(name, value)
    return f"s3://{by_hand.bucket(compose)}/{request.node.name}"
