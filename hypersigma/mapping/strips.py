"""What a model says of a scene, strip by strip, through windows that overlap and are blended.

Shape letters: B batch, N windows, C bands, K answers a pixel, w window side, n rows of a strip,
W columns.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hypersigma.mapping.sources import Source
from hypersigma.orphans import end_with_parent
from hypersigma.tasks.dense import at_a_time, mirrored, starts, triangle

type Run = Callable[[Tensor], Tensor]
"""From windows (B, C, w, w) in physical units to answers (B, K, w, w)."""
type Answers = NDArray[np.float32]
type Valid = NDArray[np.bool_]
type Opened = tuple[Run, Source]

_AHEAD = 2
"""Rows of windows that each worker may be ahead."""


@dataclass(frozen=True)
class Windows:
    """How a model looks at a scene."""

    side: int
    """w [pixel]"""
    overlap: int
    """Pixels that neighbours share, at most half a window."""
    batch_size: int | None = None
    """Windows at a time; None: `dense.at_a_time`."""

    def rows(self, height: int) -> list[int]:
        """Return where the rows of windows of a scene begin; each makes a strip."""
        return starts(height, self.side, self.overlap)


def strips(
    open_it: Callable[[], Opened], windows: Windows, *, first: int = 0, workers: int = 0
) -> Iterator[tuple[Answers, Valid]]:
    """Yield the answers (K, n, W) of a scene's rows and which pixels are valid (n, W), in order.

    The numbers are those of `hypersigma.tasks.dense.blended` of the whole scene, whatever `first`
    and `workers`. Memory: a strip of the scene, and one of answers.

    Args:
        open_it: Returns the model and the scene; each process calls it once.
        windows: Of the model.
        first: Strip to begin with, counted from 0.
        workers: Processes; 0: this one.

    Raises:
        BrokenProcessPool: A worker was killed.
    """
    opened = open_it()
    source = opened[1]
    rows, side = windows.rows(source.height), windows.side
    step, width = side - windows.overlap, starts(source.width, side, windows.overlap)[-1] + side
    begin = max(first - 1, 0)
    above: tuple[Tensor, Tensor] | None = None
    found = _by_rows(opened, open_it, windows, rows[begin:], workers)
    for number, (answers_NKww, valid_nW) in enumerate(found, start=begin):
        total = torch.zeros(answers_NKww.shape[1], side, width)
        weights = torch.zeros(side, width)
        if above is not None:
            total[:, : side - step], weights[: side - step] = above
        add(answers_NKww, windows, total, weights)
        count = step if number < len(rows) - 1 else source.height - rows[number]
        if number >= first:
            answers = (total[:, :count] / weights[:count])[..., : source.width]
            yield answers.numpy(), valid_nW[:count]
        above = total[:, step:].clone(), weights[step:].clone()


def add(answers_NKww: Tensor, windows: Windows, total: Tensor, weights: Tensor) -> None:
    """Add a row of windows' answers, weighted, to `total` (K, w, W), and the weights (w, W)."""
    weight_ww = triangle(windows.side, windows.overlap)
    for number, answer_Kww in enumerate(answers_NKww):
        column = number * (windows.side - windows.overlap)
        total[..., column : column + windows.side] += weight_ww * answer_Kww
        weights[:, column : column + windows.side] += weight_ww


def row_of_windows(opened: Opened, windows: Windows, row: int) -> tuple[Tensor, Valid]:
    """Return the answers (N, K, w, w) of the windows that begin in a row, and its valid pixels."""
    run, source = opened
    side = windows.side
    wanted = mirrored(np.arange(row, row + side), source.height)
    low = int(wanted.min())
    read_CnW, valid_nW = source.rows(low, int(wanted.max()) + 1)
    strip_CwW = torch.from_numpy(read_CnW[:, wanted - low])
    columns = [
        torch.from_numpy(mirrored(np.arange(c, c + side), source.width))
        for c in starts(source.width, side, windows.overlap)
    ]
    count = windows.batch_size or at_a_time(side)
    answers = [
        run(torch.stack([strip_CwW[..., part] for part in columns[at : at + count]]))
        for at in range(0, len(columns), count)
    ]
    return torch.cat([one.float().cpu() for one in answers]), valid_nW[row - low :]


def _by_rows(
    opened: Opened,
    open_it: Callable[[], Opened],
    windows: Windows,
    rows: Iterable[int],
    workers: int,
) -> Iterator[tuple[Tensor, Valid]]:
    if not workers:
        yield from (row_of_windows(opened, windows, row) for row in rows)
        return
    with ExitStack() as stack:
        pool = stack.enter_context(
            ProcessPoolExecutor(
                workers, mp_context=get_context("spawn"), initializer=_begin,
                initargs=(open_it,),
            )
        )  # fmt: skip
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        waiting: deque[Future[tuple[NDArray[np.float32], Valid]]] = deque()
        todo = iter(rows)
        while True:
            while len(waiting) < _AHEAD * workers and (row := next(todo, None)) is not None:
                waiting.append(pool.submit(partial(_row, windows, row)))
            if not waiting:
                return
            answers, valid = waiting.popleft().result()
            yield torch.from_numpy(answers), valid


_opened: list[Opened] = []
"""Of a worker: what its rows share."""


def _begin(open_it: Callable[[], Opened]) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    _opened[:] = [open_it()]


def _row(windows: Windows, row: int) -> tuple[NDArray[np.float32], Valid]:
    answers, valid = row_of_windows(_opened[0], windows, row)
    return answers.numpy(), valid
