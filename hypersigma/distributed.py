"""What processes that train together tell each other; with a single one all of it is a no-op."""

import datetime
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist

from hypersigma.launch import Place, from_environment

logger = logging.getLogger(__name__)


def place() -> Place:
    """Return which of the processes this one is."""
    return from_environment(os.environ)


def rank() -> int:
    """Return this process's number; the first one, 0, writes the run folder."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined(place: Place, *, seconds: float, alone: bool = False) -> Iterator[None]:
    """Meet the other processes, and part from them at the end.

    The first one alone logs what is no warning.

    Args:
        place: Of this process.
        seconds: How long a process waits for the others before it fails.
        alone: Make a group of a single process, too: some engines need one.
    """
    if dist.is_initialized() or not (place.launched or alone):
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    level = logging.getLogger("hypersigma").level
    if place.rank:
        logging.getLogger("hypersigma").setLevel(logging.WARNING)
    waits = datetime.timedelta(seconds=seconds)
    if place.launched:
        # By the environment, since torchrun listens there itself and says so in it.
        os.environ |= {
            "RANK": str(place.rank), "WORLD_SIZE": str(place.world),
            "LOCAL_RANK": str(place.local_rank),
            "MASTER_ADDR": place.address, "MASTER_PORT": str(place.port),
        }  # fmt: skip
        dist.init_process_group(backend, timeout=waits)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]  # exported, but not in words
        dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=waits)
    try:
        yield
    finally:
        logging.getLogger("hypersigma").setLevel(level)
        dist.destroy_process_group()


def mean(values: Mapping[str, float]) -> dict[str, float]:
    """Return each value's mean over the processes, the same bits on all of them."""
    if world() == 1:
        return dict(values)
    total = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(values, (total / world()).tolist(), strict=True))


def shared[T](value: T) -> T:
    """Return the first process's value on all of them."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def gathered[T](value: T) -> list[T]:
    """Return the values of all processes, by their number."""
    if world() == 1:
        return [value]
    found: list[T | None] = [None] * world()
    dist.all_gather_object(found, value)
    return [one for one in found if one is not None]
