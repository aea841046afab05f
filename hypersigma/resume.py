"""Where a run goes on: from its newest whole checkpoint, or from its beginning."""

import dataclasses
import logging
from pathlib import Path

from hypersigma import checkpoint, distributed, guard
from hypersigma.checkpoint import Checkpoint
from hypersigma.engines import Engine
from hypersigma.guard import Trouble
from hypersigma.runfolder import Progress, TrainError
from hypersigma.saving import Saver

logger = logging.getLogger(__name__)

NAMED = 16
"""Samples left out that are named in the log; all are in `guard.json`."""


class GuardError(TrainError):
    """A run whose steps went wrong too often."""


def restore(trained: Engine, run: Path) -> Progress:
    """Load the run's newest whole checkpoint into an engine, and return how far the run is.

    All processes read what the first one chose, so the run folder must be one that all of them see.
    """
    found = checkpoint.newest(run) if distributed.rank() == 0 else None
    found, slots = distributed.shared((found, [one.slot for one in guard.troubles(run)]))
    at = Progress() if found is None else _progress(found)
    if found is not None:
        trained.load(found.tensors())
        logger.info("goes on from %s", found.folder)
    return dataclasses.replace(at, skipped=tuple(sorted({*at.skipped, *slots})))


def go_back(trouble: Trouble, run: Path, rewinds: int, saver: Saver) -> None:
    """Note a step gone wrong, so that its batches are left out from now on.

    Raises:
        GuardError: There were more than `rewinds` of them.
    """
    ids = [name for own in distributed.gathered(trouble.samples) for name in own]
    count = 0
    if distributed.rank() == 0:
        saver.wait()
        count = len(guard.note(run, dataclasses.replace(trouble, samples=ids)))
    count = distributed.shared(count)
    where = f"step {trouble.step}: {trouble.reason}"
    if count > rewinds:
        raise GuardError(
            f"{where}; that is number {count} in this run, and train.guard.rewinds is {rewinds}: "
            f"{run / guard.GUARD_FILE} lists them with their tiles; try a lower train.optim.blr, "
            "or allow for more"
        )
    named = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
    logger.warning("%s; going back to the last checkpoint, without %s", where, named)


def _progress(found: Checkpoint) -> Progress:
    state = {field.name: found.state[field.name] for field in dataclasses.fields(Progress)}
    lists = {name: tuple(value) for name, value in state.items() if isinstance(value, list)}
    return Progress(**state | lists)
