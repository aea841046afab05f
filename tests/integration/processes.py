"""Programs that live as long as a context: a log each, a health check, and no survivors."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
STARTUP_SECONDS = 120
GOODBYE_SECONDS = 10
# The signal does not come if the caller had died before it was asked for: hence the look at PPID.
ENDS_WITH_CALLER = [
    *("setpriv", "--pdeathsig", "KILL"),
    *("bash", "-c", '[ "$PPID" = "$0" ] && exec "$@"'),
]


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on; all held at once, so all are different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def environment(**settings: str) -> dict[str, str]:
    """Return what a program here needs, and none of the caller's own keys and addresses."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TZ") if name in os.environ}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1", **settings}


@contextmanager
def running(
    name: str,
    command: list[str],
    healthy: Callable[[], bool],
    *,
    folder: Path,
    env: dict[str, str],
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the context ends; yield when it is healthy.

    It also ends with this process, however that ends. Its output is in `folder/name.log`.
    """
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*ENDS_WITH_CALLER, str(os.getpid()), *command],
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(name, process, healthy, log)
        yield process
    finally:
        _end(process, stop)


def answers(url: str) -> Callable[[], bool]:
    """Return a check that `url` is answered with success."""

    def check() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    return check


def succeeds(command: list[str], env: dict[str, str]) -> Callable[[], bool]:
    """Return a check that `command` exits with 0."""
    return lambda: subprocess.run(command, env=env, capture_output=True).returncode == 0


def _wait_until_healthy(
    name: str, process: subprocess.Popen[bytes], healthy: Callable[[], bool], log: Path
) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if healthy():
            return
        time.sleep(0.1)
    state = "did not answer in time" if process.poll() is None else "ended by itself"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise RuntimeError(f"{name} {state} (exit code {process.returncode}); its log ends:\n{tail}")


def _end(process: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    """End the program and all that it started."""
    process.send_signal(stop)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GOODBYE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
