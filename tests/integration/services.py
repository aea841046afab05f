"""The services of docker-compose.yml by hand, on loopback: its commands, settings and checks.

Each is a context manager that takes the filled compose file and a folder. `_here` names what
differs from a container: host names, ports, folders; it refuses a name that the file has not.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.integration.processes import answers, environment, free_ports, running, succeeds

type Compose = dict[str, Any]

ANYWHERE = "0.0.0.0"  # noqa: S104  # what the compose file says, to be replaced


def bucket(compose: Compose) -> str:
    """Return the name of the bucket that `objects` makes."""
    return str(compose["services"]["bucket"]["command"][-1])


def _here(arguments: list[str], places: dict[str, object]) -> list[str]:
    for name in places:
        assert any(name in argument for argument in arguments), f"docker-compose.yml has no {name}"
    out = []
    for argument in arguments:
        for name, place in places.items():
            argument = argument.replace(name, str(place))
        out.append(argument)
    return out


def _settings(service: Compose, places: dict[str, object]) -> dict[str, str]:
    names = list(service["environment"])
    values = _here([service["environment"][name] for name in names], places)
    return dict(zip(names, values, strict=True))


def _health_url(service: Compose, port: int) -> str:
    """Return the address that the service's health check asks, at another port."""
    _, _, host, path = service["healthcheck"]["test"][-1].split("/", 3)
    return f"http://{host.split(':')[0]}:{port}/{path}"


@contextmanager
def objects(compose: Compose, folder: Path) -> Iterator[dict[str, str]]:
    """Run SeaweedFS; yield the variables by which our programs reach it."""
    service, builder = compose["services"]["objects"], compose["services"]["worker"]
    s3, *others = free_ports(8)
    keys = folder / "s3.json"
    keys.touch(mode=0o600)
    keys.write_text(compose["configs"]["s3"]["content"], encoding="utf-8")
    (folder / "data").mkdir()
    places = {"=/data": f"={folder}/data", "=/etc/s3.json": f"={keys}", "=8333": f"={s3}"}
    arguments = _here(service["command"], {**places, f"={ANYWHERE}": "=127.0.0.1"})
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    names += ("filer.port", "filer.port.grpc", "s3.port.grpc")
    arguments += [f"-{name}={port}" for name, port in zip(names, others, strict=True)]
    command = [*service["entrypoint"], *arguments, "-master.volumeSizeLimitMB=64"]
    healthy = answers(_health_url(service, s3))
    how = {"folder": folder, "env": environment(), "stop": signal.SIGKILL}  # others take 10 s
    try:
        with running("objects", command, healthy, **how):
            settings = _settings(builder, {"objects:8333": f"127.0.0.1:{s3}"})
            env = {name: value for name, value in settings.items() if name.startswith("AWS_")}
            _do(compose["services"]["bucket"]["command"], environment(**env), folder)
            yield env
    finally:
        for port in (s3, *others):
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


@contextmanager
def postgres(compose: Compose) -> Iterator[int]:
    """Run PostgreSQL, as its Debian user where we are root, which it refuses; yield its port."""
    service = compose["services"]["postgres"]
    settings = service["environment"]
    user, password = settings["POSTGRES_USER"], settings["POSTGRES_PASSWORD"]
    programs = postgres_programs()
    (port,) = free_ports(1)
    as_user = []
    with tempfile.TemporaryDirectory(prefix="hypersigma-postgres-") as made:
        folder = Path(made)
        secret = folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(password, encoding="utf-8")
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            for path in (folder, secret):
                os.chown(path, account.pw_uid, account.pw_gid)
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        env = environment(PGPASSWORD=password)
        init = [f"--username={user}", f"--pwfile={secret}", f"--pgdata={folder}/data"]
        init += settings["POSTGRES_INITDB_ARGS"].split()
        _do([*as_user, f"{programs}/initdb", *init, "--no-sync"], env, folder)
        places = [f"--unix_socket_directories={folder}", "--listen_addresses=127.0.0.1"]
        command = [*as_user, f"{programs}/postgres", "-D", f"{folder}/data", *places]
        command += [f"--port={port}", "--fsync=off"]
        asked = [f"--port={port}", f"--username={user}", "--host=127.0.0.1"]
        check, *arguments = service["healthcheck"]["test"][1:]
        healthy = succeeds([f"{programs}/{check}", *arguments, f"--port={port}"], env)
        # SIGINT: without waiting for clients to leave.
        with running("postgres", command, healthy, folder=folder, env=env, stop=signal.SIGINT):
            _do([f"{programs}/createdb", *asked, settings["POSTGRES_DB"]], env, folder)
            yield port


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs; Debian keeps them off the PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if debian := list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return max(debian, key=lambda path: int(path.parts[4])).parent
    raise RuntimeError(
        "PostgreSQL is missing: no initdb on the PATH nor in /usr/lib/postgresql; "
        "`make services` as root installs it on Debian, elsewhere install it by hand"
    )


@contextmanager
def prefect_server(compose: Compose, folder: Path, database: int) -> Iterator[dict[str, str]]:
    """Run Prefect's server on the PostgreSQL at port `database`; yield how clients reach it."""
    service, builder = compose["services"]["prefect"], compose["services"]["worker"]
    (port,) = free_ports(1)
    places = {"@postgres:5432": f"@127.0.0.1:{database}", "/tmp": folder, ":4200": f":{port}"}
    settings = _settings(service, places)
    command = _here(service["command"], {ANYWHERE: "127.0.0.1", "4200": port})
    healthy = answers(_health_url(service, port))
    with running("prefect", command, healthy, folder=folder, env=environment(**settings)):
        clients = _settings(builder, {"prefect:4200": f"127.0.0.1:{port}"})
        names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "DO_NOT_TRACK")
        yield {**{name: clients[name] for name in names}, "PREFECT_HOME": str(folder / "client")}


@contextmanager
def dask_cluster(compose: Compose, folder: Path, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run a Dask scheduler and its workers, who get `env`; yield the scheduler's address."""
    scheduler, worker = compose["services"]["scheduler"], compose["services"]["dask-worker"]
    count = worker["deploy"]["replicas"]
    port, dashboard, *dashboards = free_ports(2 + count)
    places = {ANYWHERE: "127.0.0.1", "8786": port, ":8787": f":{dashboard}"}
    command = _here(scheduler["command"], places)
    all_env = environment(**env)
    with ExitStack() as stack:
        healthy = answers(_health_url(scheduler, dashboard))
        start = {"folder": folder, "env": all_env}
        stack.enter_context(running("scheduler", command, healthy, **start))
        for number, own in enumerate(dashboards, 1):
            places = {"scheduler:8786": f"127.0.0.1:{port}", ":8788": f":{own}", "/tmp": folder}
            command = [*_here(worker["command"], places), f"--name=worker-{number}"]
            healthy = answers(_health_url(worker, own))
            stack.enter_context(running(f"dask-worker-{number}", command, healthy, **start))
        settings = _settings(worker, {"scheduler:8786": f"127.0.0.1:{port}"})
        yield {"DASK_SCHEDULER_ADDRESS": settings["DASK_SCHEDULER_ADDRESS"]}


@contextmanager
def prefect_worker(compose: Compose, folder: Path, env: dict[str, str]) -> Iterator[str]:
    """Run the worker that starts scheduled runs, with `env`; yield its work pool's name."""
    service = compose["services"]["worker"]
    (port,) = free_ports(1)
    own = {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": str(port)}
    all_env = environment(**{**env, **own, "PREFECT_HOME": str(folder / "worker")})
    command = service["command"]
    pool = command[command.index("--pool") + 1]
    lives = answers(_health_url(service, port))
    # It answers before it has made its pool.
    ready = succeeds(["prefect", "work-pool", "inspect", pool], all_env)
    with running("worker", command, lambda: lives() and ready(), folder=folder, env=all_env):
        yield pool


def _do(command: list[str], env: dict[str, str], folder: Path) -> None:
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} failed: {done.stdout}{done.stderr}")
