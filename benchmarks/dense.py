"""Class of every pixel of Salinas-A from 33 x 33 pixels around it: one window a pixel, or shared.

A model of windows says something of all pixels of a window. The pixels of a cell in its middle
(CELL x CELL) all have a window of 33 x 33 around them, the cell's. One way runs the window of each
pixel anew, batch after batch, as the published notebook does; the other runs each cell's window
once. The logits are the same, since it is the same window. A window centred on every single pixel
cannot be shared like this: its attention sees other patches for each pixel. The pace of such a
classifier of the same encoder (`PatchClassifier`) is measured beside it, with other logits.

    python -m benchmarks.dense DATA [PIXELS]
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import configs
from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.pixels import windows
from hypersigma.tasks import segmentation
from hypersigma.tasks.checks import image_of
from hypersigma.tasks.classification import build_classifier
from hypersigma.tasks.dense import cut
from hypersigma.tasks.task import TaskConfig

WINDOW, PATCH, CELL, BATCH = 33, 3, 9, 64
EDGE = (WINDOW - CELL) // 2
LEAST_RATIO, TOLERANCE = 20, 1e-4


def main(data: str, pixels: str = "1024") -> int:
    """Print both paces; 1 if the ratio or the logits are not what they should be."""
    torch.set_num_threads(1)
    benchmark = read_benchmark("salinas_a", Path(data))
    image_CHW = image_of(benchmark.cube)
    config = configs.check(
        TaskConfig,
        {
            "run": "none", "task": "segmentation", "data": "salinas_a", "mode": "spatial",
            "size": "tiny", "root": data, "patch_size": PATCH,
            "options": {"window": WINDOW, "overlap": WINDOW // 2},
            "train": {"steps": 1, "batch_size": 1},
        },
        where="benchmark",
    )  # fmt: skip
    torch.manual_seed(0)
    model = segmentation.prepare(config, benchmark).model.eval()
    places = np.random.default_rng(0).permutation(np.argwhere(benchmark.cube.valid_HW))
    places = places[: int(pixels)]
    with torch.inference_mode():
        dense_KHW, seconds = timed(lambda: by_cell(model, image_CHW))
        shared = image_CHW[0].numel() / seconds
        alone_NK, seconds = timed(lambda: by_pixel(model, image_CHW, places))
        single = len(places) / seconds
        _, seconds = timed(lambda: centred(image_CHW, model.inputs, places))
    away = (dense_KHW[:, *places.T].T - alone_NK).abs().max().item()
    print(f"one window a cell of {CELL} x {CELL}: {shared:.0f} pixels/s")
    print(f"one window a pixel: {single:.0f} pixels/s, largest difference of logits {away:.1e}")
    print(f"classifier of windows centred on each pixel: {len(places) / seconds:.0f} pixels/s")
    print(f"{shared / single:.1f} times the pixels a second")
    return int(shared / single < LEAST_RATIO or away > TOLERANCE)


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Return what comes out, and the seconds."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def by_cell(model: torch.nn.Module, image_CHW: Tensor) -> Tensor:
    """Return the logits (K, H, W), each window run once."""
    height, width = image_CHW.shape[1:]
    corners = [(row, column) for row in range(0, height, CELL) for column in range(0, width, CELL)]
    found = []
    for first in range(0, len(corners), BATCH):
        part = corners[first : first + BATCH]
        logits = model(torch.stack([around(image_CHW, row, column) for row, column in part]))
        found.append(logits[:, :, EDGE : EDGE + CELL, EDGE : EDGE + CELL])
    cells = torch.cat(found)
    out = torch.empty(cells.shape[1], height, width)
    for (row, column), cell in zip(corners, cells, strict=True):
        inside = cell[:, : height - row, : width - column]
        out[:, row : row + inside.shape[1], column : column + inside.shape[2]] = inside
    return out


def by_pixel(model: torch.nn.Module, image_CHW: Tensor, places: np.ndarray) -> Tensor:
    """Return the logits (N, K), a window run for each pixel."""
    found = []
    for part in np.split(places, range(BATCH, len(places), BATCH)):
        corners = part // CELL * CELL
        logits = model(torch.stack([around(image_CHW, int(a), int(b)) for a, b in corners]))
        row, column = (part - corners + EDGE).T
        found.append(logits[torch.arange(len(part)), :, row, column])
    return torch.cat(found)


def around(image_CHW: Tensor, row: int, column: int) -> Tensor:
    """Return the window of the cell with this corner."""
    return cut(image_CHW, row - EDGE, column - EDGE, WINDOW)


def centred(image_CHW: Tensor, scale: torch.nn.Module, places: np.ndarray) -> Tensor:
    """Return the logits (N, K) of a classifier of windows around each pixel."""
    classifier = build_classifier(
        "spatial", "tiny", in_chans=len(image_CHW), num_classes=6, window=WINDOW,
        patch_size=PATCH, ssa=False,
    ).eval()  # fmt: skip
    found = [
        classifier(scale(windows(image_CHW, part[:, 0], part[:, 1], WINDOW)))
        for part in np.split(places, range(BATCH, len(places), BATCH))
    ]
    return torch.cat(found)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
