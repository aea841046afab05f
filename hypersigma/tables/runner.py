"""Run the cells that are missing, in several processes, and write tables of all."""

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

import configs
from hypersigma import cubefit
from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.cubes.splits import save_split
from hypersigma.orphans import end_with_parent
from hypersigma.runfolder import TrainError
from hypersigma.runlog import plain_json
from hypersigma.tables.baselines import baseline_maps
from hypersigma.tables.config import CELL_FILE, Cell, TablesConfig, cells
from hypersigma.tables.page import write_page
from hypersigma.tables.results import write_markdown, write_parquet
from hypersigma.tasks.cubetasks import CUBE_TASKS
from hypersigma.tasks.task import TaskConfig
from hypersigma.train import InterruptedRunError

logger = logging.getLogger(__name__)


def bench_tasks(config: TablesConfig) -> dict[str, Any]:
    """Fill the tables; cells that are there are not run again.

    Tables are written even where cells failed: of those that are there.

    Raises:
        ConfigError: The config does not fit; nothing has been run then.
        TrainError: Cells failed; says which and why. The same command tries these again.
        InterruptedRunError: Somebody, or a scheduler, asked to stop; the same command goes on.
    """
    wanted = list(cells(config))
    # Two tables may have a cell in common.
    once = {cell.folder: cell for cell in wanted}
    missing = [cell for folder, cell in once.items() if not (folder / CELL_FILE).is_file()]
    logger.info("%d cells, %d of them to run", len(wanted), len(missing))
    began, failed = time.perf_counter(), list[str]()
    for number, (cell, error) in enumerate(_run(missing, config.processes), start=1):
        where = f"{cell.experiment}: {cell.name}, seed {cell.seed}"
        if error is None:
            logger.info("%d of %d: %s", number, len(missing), where)
        else:
            failed.append(f"{where}: {error}")
            logger.warning("%d of %d failed: %s", number, len(missing), failed[-1])
    found = [record for cell in wanted if (record := read_cell(cell)) is not None]
    config.out.mkdir(parents=True, exist_ok=True)
    written = {
        "parquet": write_parquet(config.out / "results.parquet", found),
        "markdown": write_markdown(config.out / "results.md", found),
        "page": write_page(config.out / "results.html", found),
    }
    if failed:
        raise TrainError(
            f"{len(failed)} of {len(wanted)} cells failed, and the same command tries them again:\n"
            + "\n".join(failed)
        )
    return {
        "cells": len(wanted),
        "run": len(missing),
        "seconds": time.perf_counter() - began,
        **{name: str(path) for name, path in written.items()},
    }


def run_cell(cell: Cell) -> None:
    """Train or compute what a cell is about; its record is the last file that is written."""
    task = configs.check(TaskConfig, cell.config, where=cell.name)
    metrics, seconds = _of_model(task) if cell.method is None else _of_method(cell.method, task)
    record = {
        "experiment": cell.experiment, "name": cell.name, "method": cell.method,
        "seed": cell.seed, "metrics": metrics, "seconds": seconds, "config": cell.config,
    }  # fmt: skip
    temporary = cell.folder / f".{CELL_FILE}.{os.getpid()}"
    temporary.write_text(plain_json(record), encoding="utf-8")
    temporary.replace(cell.folder / CELL_FILE)


def read_cell(cell: Cell) -> dict[str, Any] | None:
    """Return a cell's record as its table names it, None if there is none yet."""
    path = cell.folder / CELL_FILE
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # Another table may have filled it, of a folder that was elsewhere then.
    return record | {"experiment": cell.experiment, "name": cell.name, "config": cell.config}


def _of_model(task: TaskConfig) -> tuple[Mapping[str, float], float]:
    """Return a model's numbers, and the seconds of its training."""
    summary = cubefit.fit_task(task)
    if "metrics" not in summary:
        raise InterruptedRunError(
            f"{task.run} was stopped after step {summary['step']} of {summary['steps']}; the same "
            "command goes on from there"
        )
    return summary["metrics"], summary["seconds"]


def _of_method(method: str, task: TaskConfig) -> tuple[Mapping[str, float], float]:
    """Return a classical method's numbers, and the seconds that it took."""
    benchmark = read_benchmark(task.data, task.root)
    prepared = CUBE_TASKS[task.task].prepare(task, benchmark)
    began = time.perf_counter()
    maps = baseline_maps(method, task, benchmark, prepared.split)
    seconds = time.perf_counter() - began
    task.run.mkdir(parents=True, exist_ok=True)
    if prepared.split is not None:
        save_split(prepared.split, task.run / cubefit.SPLIT_FILE)
    cubefit.write_maps(task.run / cubefit.MAPS_FILE, maps)
    return prepared.metrics(maps), seconds


def _run(missing: Sequence[Cell], processes: int) -> Iterator[tuple[Cell, str | None]]:
    """Run cells; yield each when it is done, with what went wrong."""
    if processes == 1 or len(missing) < 2:
        for cell in missing:
            yield cell, _attempt(cell)
        return
    threads = max(1, (os.cpu_count() or 1) // processes)
    # What has threads must not be forked.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _begin, (threads,))
    try:
        running: dict[Future[str | None], Cell] = {
            pool.submit(_attempt, cell): cell for cell in missing
        }
        for done in as_completed(running):
            try:
                yield running[done], done.result()
            except BrokenProcessPool:
                yield running[done], "a process was killed"
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    """Set a worker process up."""
    end_with_parent()
    torch.set_num_threads(threads)


def _attempt(cell: Cell) -> str | None:
    """Run a cell; return what went wrong.

    Raises:
        InterruptedRunError: It was asked to stop, and so are all.
    """
    try:
        run_cell(cell)
    except InterruptedRunError:
        raise
    except Exception as error:  # the others go on, and all that failed is told
        return f"{type(error).__name__}: {error}"
    return None
