"""What the services promise us: conditional puts, passwords that are asked for, workers."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import urlsplit

import icechunk
import obstore
import pytest
from distributed import Client
from obstore.store import S3Store

from storage import store, work
from tests.integration.processes import ROOT, environment
from tests.integration.services import postgres_programs
from tests.storage.tiles import build, make_store, make_tiles


def object_store(env, url, **changes):
    parts = urlsplit(url)
    settings = {
        "endpoint": env["AWS_ENDPOINT_URL"],
        "access_key_id": env["AWS_ACCESS_KEY_ID"],
        "secret_access_key": env["AWS_SECRET_ACCESS_KEY"],
        "region": env["AWS_REGION"],
        "prefix": parts.path.strip("/"),
    }
    return S3Store(
        parts.netloc,
        **(settings | changes),
        client_options={"allow_http": True},
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=5)},
    )


def test_of_many_who_create_an_object_one_succeeds(objects, location):
    s3 = object_store(objects, location)

    def create(turn, number):
        try:
            s3.put(f"lock-{turn}", str(number).encode(), mode="create")
        except obstore.exceptions.AlreadyExistsError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        for turn in range(3):
            assert sum(pool.map(create, [turn] * 4, range(4))) == 1


def test_a_change_against_an_old_state_is_refused(objects, location):
    s3 = object_store(objects, location)
    s3.put("count", b"0")

    def increment(_):
        while True:
            got = s3.get("count")
            more = str(int(bytes(got.bytes())) + 1).encode()
            try:
                s3.put("count", more, mode={"e_tag": got.meta["e_tag"]})
            except obstore.exceptions.PreconditionError:
                continue
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, range(60)))
    assert bytes(s3.get("count").bytes()) == b"60"


@pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
def test_the_object_store_asks_for_its_keys(objects, location, wrong):
    s3 = object_store(objects, location, **{wrong: "AKIAIOSFODNN7EXAMPLE"})
    with pytest.raises(obstore.exceptions.PermissionDeniedError):
        s3.put("a", b"1")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(objects["AWS_ENDPOINT_URL"])


def test_of_two_commits_on_one_head_the_second_is_refused(location):
    repo = make_store(location)
    assert build(repo, make_tiles("s1")).tag == "v1"
    first, second = (store.begin(store.open_repository(location)) for _ in range(2))
    forks = {"s2": first.fork(), "s3": second.fork()}
    for name, fork in forks.items():
        store.write_scene(fork, make_tiles(name))
    sessions = [work.join(repo, {name: fork})[0] for name, fork in forks.items()]
    work.save(repo, sessions[0], "by one builder", {})
    with pytest.raises(icechunk.ConflictError):
        work.save(repo, sessions[1], "by another", {})
    assert set(store.staged(repo)) == {"s2"}
    store.commit_version(repo, {"s3": forks["s3"]}, code_version="1")
    assert set(store.scenes(repo)) == {"s1", "s2", "s3"}


def test_prefect_keeps_its_state_in_postgres_behind_a_password(
    services, compose, postgres, tmp_path
):
    url = services.env["PREFECT_API_URL"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/version")
    code = (
        "from prefect.variables import Variable\n"
        "Variable.set('place', 'here')\n"
        "print(Variable.get('place'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**services.env),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["here"], done.stderr
    settings = compose["services"]["postgres"]["environment"]
    query = [
        f"{postgres_programs()}/psql",
        "--host=127.0.0.1",
        f"--port={postgres}",
        "--no-password",
    ]
    query += [f"--username={settings['POSTGRES_USER']}", settings["POSTGRES_DB"]]
    query += ["--tuples-only", "--command=select name, value from variable"]
    refused = subprocess.run(query, env=environment(), capture_output=True, text=True)
    assert "no password supplied" in refused.stderr
    env = environment(PGPASSWORD=settings["POSTGRES_PASSWORD"])
    stored = subprocess.run(query, env=env, capture_output=True, text=True, check=True).stdout
    assert stored.split() == ["place", "|", '"here"']


FLOW = """
import os
from prefect import flow

@flow
def where():
    print(os.environ["AWS_ENDPOINT_URL"], os.environ["DASK_SCHEDULER_ADDRESS"])
    return 7
"""

RUN = """
import sys
from prefect import flow
from prefect.deployments import run_deployment

source = flow.from_source(source=sys.argv[1], entrypoint="a_flow.py:where")
source.deploy("d", work_pool_name=sys.argv[2], print_next_steps=False)
print(run_deployment("where/d", timeout=90, poll_interval=1).state_name)
"""


def test_the_prefect_worker_runs_what_is_deployed(services, tmp_path):
    (tmp_path / "a_flow.py").write_text(FLOW)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), services.pool],
        env=environment(**services.env),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[-1:] == ["Completed"], done.stdout + done.stderr


def test_workers_reach_the_store(services, location):
    repo = make_store(location)
    build(repo, make_tiles("s1"))
    with Client(services.env["DASK_SCHEDULER_ADDRESS"]) as client:
        threads = client.nthreads()
        seen = client.run(_scenes, location)
    assert list(threads.values()) == [1, 1]
    assert list(seen.values()) == [({"s1"}, str(ROOT))] * 2


def _scenes(location):
    return set(store.scenes(store.open_repository(location))), os.environ["PYTHONPATH"]
