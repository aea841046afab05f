"""Shards made one after the other here, or several at a time in processes of their own."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for

from storage.shardplan import Task
from storage.shardtiles import Tiles
from storage.shardwork import Done, Work, finish_shard

_AHEAD = 2
"""Shards' metadata that are handed out for each process: none waits for the next."""

_job: tuple[Work, Tiles] | None = None
"""Of a spawned process: what all its tasks share."""


def run(work: Work, tiles: Tiles, tasks: Iterator[Task], jobs: int) -> Iterator[Done]:
    """Finish shards, yielding each as it is done.

    Args:
        work: What they are made from.
        tiles: Their origin, opened by this process.
        tasks: Each is asked for when it is begun, or little earlier.
        jobs: 1: in this process.

    Raises:
        ChildProcessError: A process was killed.
    """
    if jobs == 1:
        for task in tasks:
            yield finish_shard(work, tiles, task)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(work,))
    try:
        yield from _spread(pool, tasks, jobs)
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"a process that wrote shards to {work.place} was killed, most often because memory "
            "ran out: start the same command again with fewer --jobs, it goes on where it was"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _spread(pool: ProcessPoolExecutor, tasks: Iterator[Task], jobs: int) -> Iterator[Done]:
    running: set[Future[Done]] = set()
    for task in tasks:
        running.add(pool.submit(_finish, task))
        if len(running) >= _AHEAD * jobs:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            yield future.result()


def _begin(work: Work) -> None:
    """Prepare a process for its tasks; it ends when the one that started it does, however."""
    global _job
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _job = work, work.origin.open()


def _finish(task: Task) -> Done:
    if _job is None:
        raise RuntimeError("a process got a task before its work")
    return finish_shard(*_job, task)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)  # in the middle of a file: nobody takes that for a whole one
