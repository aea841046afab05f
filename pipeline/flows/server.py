"""The Prefect API that flows talk to: the configured one, or a server of our own on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

STARTUP_SECONDS = 180
GOODBYE_SECONDS = 10


def quiet_defaults() -> None:
    """Set what a run without further settings needs; call it before Prefect is imported.

    No usage statistics are sent, and the embedded server gets the time that a small machine needs.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", str(STARTUP_SECONDS))
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "pipeline,storage")


@contextmanager
def prefect_server() -> Iterator[str]:
    """Yield the address of an API with a scheduler, for as long as the context is open.

    `PREFECT_API_URL` names one that exists; without it a server is started on a free loopback
    port, with Prefect's own SQLite database, and ended with the context. Prefect's embedded
    server will not do: it runs no scheduler.

    Raises:
        TimeoutError: The server did not answer in `STARTUP_SECONDS`.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        yield url
        return
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start"]
    # A session of its own: Ctrl-C must reach the runner first, which still needs the server then.
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        # Its pages would ask at port 4200 otherwise.
        env={**os.environ, "PREFECT_SERVER_UI_API_URL": url},
        start_new_session=True,
    )
    try:
        _wait_until_healthy(f"{url}/health", server)
        os.environ["PREFECT_API_URL"] = url
        yield url
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        _end(server)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server; one that waits for its clients to hang up is not waited for."""
    server.terminate()
    try:
        server.wait(timeout=GOODBYE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the Prefect server ended with exit code {server.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310  # our own loopback address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError(f"the Prefect server did not answer at {url} in {STARTUP_SECONDS} s")
