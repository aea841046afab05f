"""Where scenes are worked on: here, one after the other, or on Dask's workers."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

import dask

from pipeline.coordinator import Ingested
from pipeline.plan import Failure, Task, is_transient
from pipeline.sources import Product

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

Work = Callable[[Product], Ingested]
Outcome = tuple[Task, Ingested | Failure]
Runner = Callable[[Sequence[Task], Callable[[Task], Work]], Iterable[Outcome]]
"""Asks for each task's work when it begins it, and yields outcomes as they come."""

CONNECT_SECONDS = 30
"""How long a scheduler may take to answer."""
WORKER_SECONDS = 600
"""How long there may be no worker at all before a build ends."""
_LOOK_SECONDS = 10
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

    A worker that dies is replaced by another. Two scenes for each thread are handed out at a time,
    so that what waits here does not grow with their number; large ones first, so that no worker has
    a long one left when the others are done. A scene whose workers died, here or in an earlier
    build, is worked on when all others are done, one at a time: so none dies of another's fault.

    Args:
        address: Of the scheduler, `tcp://host:8786`.
    """

    def run(tasks: Sequence[Task], start: Callable[[Task], Work]) -> Iterator[Outcome]:
        from distributed import Client, KilledWorker

        with (
            Client(address, set_as_default=False, timeout=CONNECT_SECONDS) as client,
            client.as_current(),
        ):
            _wait_for_workers(client, address)
            together = [task for task in tasks if not task.cut_off]
            waiting = deque(sorted(together, key=lambda task: task.look[0], reverse=True))
            alone = deque(task for task in tasks if task.cut_off)
            running: dict[Future[Ingested], Task] = {}
            number = 0
            while waiting or running or alone:
                last = not waiting and not running
                source = alone if last else waiting
                most = 1 if last else _AHEAD * max(1, _threads(client))  # workers come and go
                while source and len(running) < most:
                    task = source.popleft()
                    future = client.submit(_on_worker, start(task), task.path, pure=False)
                    running[future] = task
                try:
                    ended = _ended(client, address, list(running))
                except TimeoutError as gone:
                    if not last:
                        raise
                    # It took them all along: what the others have made is published without it.
                    yield from _without_workers([*running.values()], [*alone], gone)
                    return
                for future in ended:
                    task = running.pop(future)
                    error = future.exception()
                    if isinstance(error, KilledWorker) and not last:
                        alone.append(task)
                        continue
                    number += 1
                    logger.info("scene %d of %d: %s", number, len(tasks), task.product)
                    yield task, _outcome(task, future, error)

    return run


def _outcome(
    task: Task, future: "Future[Ingested]", error: BaseException | None
) -> Ingested | Failure:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        error = _killed(task)
    return future.result() if error is None else failure(task, error)


def _killed(task: Task) -> ChildProcessError:
    return ChildProcessError(
        f"{task.product}: the workers that worked on it died, most often because memory ran out: "
        "give them more memory and `retry --failed`, or take the product away"
    )


def _without_workers(
    last: Sequence[Task], waiting: Sequence[Task], error: TimeoutError
) -> Iterator[Outcome]:
    yield from ((task, failure(task, _killed(task))) for task in last)
    yield from ((task, failure(task, error)) for task in waiting)


def _wait_for_workers(client: "Client", address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise TimeoutError(
            f"the Dask scheduler at {address} must have a worker, got none within "
            f"{CONNECT_SECONDS} s; start one: dask worker {address}"
        ) from error


def _threads(client: "Client") -> int:
    workers = client.scheduler_info(n_workers=-1).get("workers", {})
    return sum(worker["nthreads"] for worker in workers.values())


def _ended(
    client: "Client", address: str, futures: list["Future[Ingested]"]
) -> set["Future[Ingested]"]:
    """Wait until one of `futures` has ended; return those that have.

    Raises:
        TimeoutError: There has been no worker for `WORKER_SECONDS`.
        ConnectionError: The scheduler is gone.
    """
    from distributed import wait

    alone = 0.0
    while True:
        try:
            ended: set[Future[Ingested]] = wait(futures, _LOOK_SECONDS, "FIRST_COMPLETED").done
            return ended
        except TimeoutError:
            alone = 0.0 if _threads(client) else alone + _LOOK_SECONDS
        except CancelledError as error:
            raise ConnectionError(
                f"the Dask scheduler at {address} is gone; finished scenes are kept: start it and "
                "its workers, and build again"
            ) from error
        if alone >= WORKER_SECONDS:
            raise TimeoutError(
                f"the Dask scheduler at {address} has had no worker for {alone:g} s; finished "
                "scenes are kept: start workers, and build again"
            )


def failure(task: Task, error: BaseException) -> Failure:
    """Return `error` as the failure of a scene; the log has the traceback of an unexpected one."""
    expected = isinstance(error, ValueError | OSError)
    logger.error("%s failed: %s", task.product, error, exc_info=None if expected else error)
    text = str(error) if expected else f"{type(error).__name__}: {error}"
    return Failure(task.product, text, transient=is_transient(error))


def _on_worker(work: Work, path: Product) -> Ingested:
    # A worker's own default would be to ask the cluster, in which this scene holds a thread.
    with dask.config.set(scheduler="threads"):
        return work(path)
