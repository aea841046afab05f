"""A training process: its device, what it draws at random, and the others it works with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from hypersigma import distributed
from hypersigma.runfolder import TrainError
from hypersigma.trainconfig import TrainConfig

WAIT_SECONDS = 1800.0
"""How long a process waits for the others, beyond what it may stand still."""


@contextmanager
def process(config: TrainConfig) -> Iterator[torch.device]:
    """Be one of the processes that were started together; yield the device of this one.

    Raises:
        TrainError: A GPU is asked for and there is none; another process is gone.
        LaunchError: The environment does not say who the others are.
    """
    place = distributed.place()
    device = pick_device(config.device)
    if device.type == "cuda":
        device = torch.device("cuda", place.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    seconds = WAIT_SECONDS + (config.stall_seconds or 0)
    alone = config.engine in ("ddp", "deepspeed")
    try:
        with (
            _deterministic(config.deterministic),
            distributed.joined(place, seconds=seconds, alone=alone),
        ):
            yield device
    except RuntimeError as error:
        # What torch raises then is a plain RuntimeError with gloo's words.
        if place.world > 1 and "onnection" in str(error) and not isinstance(error, TrainError):
            raise TrainError(
                f"process {place.rank} of {place.world} lost another one, which says why: {error}"
            ) from error
        raise


def pick_device(name: str) -> torch.device:
    """Return the device that a config names.

    Raises:
        TrainError: A GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("device cuda: no GPU found; give device=cpu or device=auto")
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")


def generator(*seeds: int) -> torch.Generator:
    """Return a CPU generator that is a function of the seeds alone."""
    return torch.Generator().manual_seed(_word(seeds))


def seed_globally(*seeds: int) -> None:
    """Make what torch draws from its own generators (drop path) a function of the seeds alone."""
    torch.manual_seed(_word((*seeds, 1)))


def _word(seeds: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Allow only algorithms that give the same bits each time.

    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    if not wanted:
        yield
        return
    # What cuBLAS needs for it, read when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
