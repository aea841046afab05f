"""Which process of how many this one is, from the environment of whatever started it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_PORT, PORTS = 20_000, 20_000
"""Where processes of a SLURM job meet: below the ports that systems hand out by themselves."""
LOOPBACK = "127.0.0.1"

_NODE = re.compile(r"[^,\[\]]*(?:\[[^\]]*\][^,\[\]]*)*")


class LaunchError(ValueError):
    """An environment that does not say who else is there."""


@dataclass(frozen=True)
class Place:
    """A process among those that train together."""

    rank: int = 0
    local_rank: int = 0
    """Among those of its machine: the number of its GPU."""
    world: int = 1
    address: str = LOOPBACK
    """Where the first process listens."""
    port: int = 0
    launched: bool = False
    """Something started it that also starts several."""


def from_environment(environment: Mapping[str, str]) -> Place:
    """Return the place that torchrun, deepspeed or srun gave this process, or that of a single one.

    `MASTER_ADDR` and `MASTER_PORT` go before what is worked out of SLURM's variables. A script that
    `sbatch` runs is no task of a step: it is single, whatever the job has.

    Raises:
        LaunchError: A variable is missing or no number.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _checked(
            Place(
                rank=_number(environment, "RANK"),
                local_rank=_number(environment, "LOCAL_RANK", environment["RANK"]),
                world=_number(environment, "WORLD_SIZE"),
                address=_text(environment, "MASTER_ADDR"),
                port=_number(environment, "MASTER_PORT"),
                launched=True,
            )
        )
    if "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment:
        return _checked(_of_slurm(environment))
    return Place()


def hosts(nodes: str) -> list[str]:
    """Expand SLURM's list of nodes: `node[01-03,7],login` is node01, node02, node03, node7, login.

    Raises:
        LaunchError: It cannot be read.
    """
    parts = [part for part in _NODE.findall(nodes) if part]
    if not parts or ",".join(parts) != nodes:
        raise LaunchError(f"expected nodes such as node[01-04,7], got {nodes!r}")
    return [host for part in parts for host in _expanded(part)]


def _of_slurm(environment: Mapping[str, str]) -> Place:
    nodes = environment.get("SLURM_STEP_NODELIST") or _text(environment, "SLURM_NODELIST")
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or _text(environment, "SLURM_NTASKS")
    job = _number(environment, "SLURM_JOB_ID")
    return Place(
        rank=_number(environment, "SLURM_PROCID"),
        local_rank=_number(environment, "SLURM_LOCALID"),
        world=_number({"SLURM_STEP_NUM_TASKS": tasks}, "SLURM_STEP_NUM_TASKS"),
        address=environment.get("MASTER_ADDR") or hosts(nodes)[0],
        port=_number(environment, "MASTER_PORT", str(FIRST_PORT + job % PORTS)),
        launched=True,
    )


def _expanded(part: str) -> list[str]:
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [before]
    inside, closed, after = rest.partition("]")
    numbers = []
    for piece in inside.split(","):
        first, dash, last = piece.partition("-")
        if not closed or not first.isdigit() or (dash and not last.isdigit()):
            raise LaunchError(f"expected nodes such as node[01-04,7], got {part!r}")
        whole = range(int(first), int(last or first) + 1)
        numbers += [str(number).zfill(len(first)) for number in whole]
    return [before + number + end for number in numbers for end in _expanded(after)]


def _checked(place: Place) -> Place:
    if not 0 <= place.rank < place.world:
        raise LaunchError(
            f"expected a rank below the number of processes, got {place.rank} of {place.world}"
        )
    return place


def _number(environment: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = environment.get(name, default)
    if text is None or not text.isdigit():
        raise LaunchError(f"expected a number in the variable {name}, got {text!r}")
    return int(text)


def _text(environment: Mapping[str, str], name: str) -> str:
    text = environment.get(name)
    if not text:
        raise LaunchError(f"expected the variable {name} to be set, as its launcher does")
    return text
