"""Trainees in processes of their own, and what they saw."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from hypersigma.finetune import FinetuneConfig
from tests.integration.processes import ROOT, environment, free_ports

SECONDS = 900


def job(config):
    """Return a config as a trainee reads it."""
    task = "finetune" if isinstance(config, FinetuneConfig) else "pretrain"
    plain = TypeAdapter(type(config)).dump_python(config, mode="json")
    return {"task": task, "config": plain}


@contextmanager
def trainees(
    folder: Path, configs: list, *options: object, processes: int = 1
) -> Iterator[list[subprocess.Popen]]:
    """Start processes that train together, one config after the other; they end with the context.

    What each writes is in `folder/<number>.out` and `.err`.
    """
    folder.mkdir(exist_ok=True, parents=True)
    jobs = folder / "jobs.json"
    jobs.write_text(json.dumps([job(config) for config in configs]))
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "tests.hypersigma.engines.trainee", jobs, *options]
    started = []
    try:
        for rank in range(processes):
            with (
                (folder / f"{rank}.out").open("w") as out,
                (folder / f"{rank}.err").open("w") as err,
            ):
                started.append(
                    subprocess.Popen(
                        [str(part) for part in command], stdout=out, stderr=err, cwd=ROOT,
                        env=environment(OMP_NUM_THREADS="1", **together(rank, processes, port)),
                    )
                )  # fmt: skip
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def together(rank, processes, port):
    """Return what torchrun tells a process of several."""
    if processes == 1:
        return {}
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip


def trained(folder, configs, *options, processes=1, code=0):
    """Let trainees come to their end, and return what the first of them printed for each config."""
    with trainees(folder, configs, *options, processes=processes) as started:
        codes = [process.wait(timeout=SECONDS) for process in started]
    errors = [(folder / f"{rank}.err").read_text() for rank in range(processes)]
    assert codes == [code] * processes, "\n".join(errors)
    lines = (folder / "0.out").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def seen(folder):
    """Return what was trained on, by step and micro-batch; all times it was, it was the same."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            try:
                one = json.loads(line)
            except ValueError:
                continue  # cut off by a kill
            what = (tuple(one["ids"]), tuple(one["start"]))
            assert found.setdefault(tuple(one["at"]), what) == what
    return found
