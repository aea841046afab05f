"""Where scenes are worked on: here, one after the other, or on Dask's workers."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import dask

from pipeline.coordinator import Ingested
from pipeline.plan import Failure, Task
from pipeline.sources import Product

logger = logging.getLogger(__name__)

Work = Callable[[Product], Ingested]
Outcome = tuple[Task, Ingested | Failure]
Runner = Callable[[Sequence[Task], Callable[[Task], Work]], Iterable[Outcome]]
"""Asks for each task's work when it begins it, and yields outcomes as they come."""

CONNECT_SECONDS = 30
"""How long a scheduler may take to answer."""
_AHEAD = 2
"""Scenes that are handed to Dask for each of its threads: none waits for the coordinator."""


def in_turn(tasks: Sequence[Task], start: Callable[[Task], Work]) -> Iterator[Outcome]:
    """Work on one scene after the other; Dask uses the cores inside each."""
    for number, task in enumerate(tasks, 1):
        logger.info("scene %d of %d: %s (%s)", number, len(tasks), task.product, task.reason)
        try:
            outcome: Ingested | Failure = start(task)(task.path)
        except Exception as error:  # a scene is a unit of failure: name it, go on with the others
            outcome = failure(task, error)
        yield task, outcome


def on_dask(address: str) -> Runner:
    """Return what runs scenes on the workers of a scheduler, which see the same files and store.

    A worker that dies is replaced by another, up to three times for one scene. Two scenes for
    each thread are handed out at a time, so that what waits here does not grow with their number.

    Args:
        address: Of the scheduler, `tcp://host:8786`.
    """

    def run(tasks: Sequence[Task], start: Callable[[Task], Work]) -> Iterator[Outcome]:
        from distributed import Client, as_completed

        with Client(address, set_as_default=False, timeout=CONNECT_SECONDS) as client:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)  # or TimeoutError: all would wait
            threads = sum(worker["nthreads"] for worker in
                          client.scheduler_info(n_workers=-1)["workers"].values())  # fmt: skip
            waiting = iter(tasks)
            running = as_completed(loop=client.loop)
            of = {}

            def submit() -> None:
                for task in waiting:
                    future = client.submit(_on_worker, start(task), task.path, pure=False)
                    of[future.key] = task
                    running.add(future)
                    return

            for _ in range(max(1, threads) * _AHEAD):
                submit()
            for number, future in enumerate(running, 1):
                task = of.pop(future.key)
                error = future.exception()
                outcome = future.result() if error is None else failure(task, error)
                future.release()
                logger.info("scene %d of %d: %s", number, len(tasks), task.product)
                yield task, outcome
                submit()

    return run


def failure(task: Task, error: BaseException) -> Failure:
    """Return `error` as the failure of a scene; the log has the traceback of an unexpected one."""
    expected = isinstance(error, ValueError | OSError)
    logger.error("%s failed: %s", task.product, error, exc_info=None if expected else error)
    text = str(error) if expected else f"{type(error).__name__}: {error}"
    return Failure(task.product, text)


def _on_worker(work: Work, path: Product) -> Ingested:
    # A worker's own default would be to ask the cluster, in which this scene holds a thread.
    with dask.config.set(scheduler="threads"):
        return work(path)
