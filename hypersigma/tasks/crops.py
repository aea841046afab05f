"""Batches of windows of one image and of what is known of its pixels.

Shape letters: B batch, C bands, H W pixels, w window side.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypersigma import distributed
from hypersigma.loader import SYMMETRIES, turn
from hypersigma.tasks.dense import cut

UNKNOWN = -1
"""Target of a pixel that counts in no loss."""


@dataclass(frozen=True)
class Crops:
    """Windows of an image, turned and mirrored at random."""

    x: Tensor
    """(B, C, w, w), as in the image."""
    target: Tensor
    """(B, w, w) int64: class, 0-based, or -1."""
    ids: list[str]
    """Row and column of each window's corner."""


def crop_batches(
    image_CHW: Tensor,
    target_HW: np.ndarray,
    state: Mapping[str, Any] | None,
    *,
    window: int,
    batch_size: int,
    seed: int,
    centred: bool = False,
) -> Iterator[tuple[Crops, dict[str, Any]]]:
    """Yield a process's endless batches, each with the state to go on from after it.

    A window lies anywhere around a pixel with a target, or has it in its middle; this pixel is
    drawn so that all classes are as likely. What is drawn is a function of the seed and the
    position alone.

    Args:
        image_CHW: The image.
        target_HW: Class, 0-based; -1 where a pixel is not trained on.
        state: Position to begin at; None: the first.
        window: Side w [pixel].
        batch_size: Windows in a batch.
        seed: What they are drawn from.
        centred: The pixel is the window's middle one, also beyond the image's border, where it is
            mirrored; the side is odd.
    """
    places = [np.argwhere(target_HW == k) for k in np.unique(target_HW[target_HW != UNKNOWN])]
    target = torch.from_numpy(target_HW.astype(np.int64))
    rank, world = distributed.rank(), distributed.world()
    begin = state["position"] if state else 0
    while True:
        position = begin + rank * batch_size
        begin += world * batch_size
        rng = np.random.default_rng([seed, position])
        corners = [
            _corner(places, target_HW.shape, window, rng, centred=centred)
            for _ in range(batch_size)
        ]
        turns = rng.integers(0, SYMMETRIES, size=batch_size).tolist()
        x, known = (
            torch.stack([
                turned(cut(whole, row, column, window), number)
                for (row, column), number in zip(corners, turns, strict=True)
            ])
            for whole in (image_CHW, target[None])
        )  # fmt: skip
        ids = [f"{row} {column}" for row, column in corners]
        yield Crops(x, known[:, 0], ids), {"position": begin}


def turned(window_Kww: Tensor, number: int) -> Tensor:
    """Return a window by one of the eight symmetries of the square; 0: as it is."""
    return torch.from_numpy(np.ascontiguousarray(turn(window_Kww.numpy(), number)))


def _corner(
    places: list[np.ndarray],
    shape: tuple[int, ...],
    window: int,
    rng: np.random.Generator,
    *,
    centred: bool,
) -> tuple[int, int]:
    """Draw the corner of a window that has a pixel with a target, inside the image if it fits."""
    of_class = places[rng.integers(len(places))]
    pixel = of_class[rng.integers(len(of_class))]
    if centred:
        return int(pixel[0]) - window // 2, int(pixel[1]) - window // 2
    row, column = (
        int(np.clip(at - rng.integers(window), 0, max(side - window, 0)))
        for at, side in zip(pixel, shape, strict=True)
    )
    return row, column
