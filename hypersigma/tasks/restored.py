"""What tasks share that restore an image: ground apart, bands brought to 0..1, pairs to train on.

Shape letters: B batch, C bands, H W pixels, w window side, N pixels.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hypersigma import distributed
from hypersigma.cubes.cube import Cube
from hypersigma.cubes.splits import Split
from hypersigma.loader import SYMMETRIES
from hypersigma.metrics.restoration import SSIM_REACH, psnr, restoration_report
from hypersigma.tasks.crops import turned

SHARES = (0.55, 0.15)
"""Of the image's longer side: ground to train on, ground that chooses the checkpoint; the rest,
less two guards, is measured on."""
LOW, HIGH = 0.02, 0.98
"""Quantiles of the training ground that become 0 and 1, band by band."""
LEAST_SPAN = 1e-6

type Box = tuple[slice, slice]


class BandRange(nn.Module):
    """Bring bands to about 0..1 by the range of training pixels; what lies outside stays outside.

    Args:
        bands: C.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.low_C: Tensor
        self.span_C: Tensor
        self.register_buffer("low_C", torch.zeros(bands))
        self.register_buffer("span_C", torch.ones(bands))

    def fit(self, x_CN: Tensor) -> None:
        """Take the range of training pixels."""
        low_C = x_CN.quantile(LOW, 1)
        self.low_C.copy_(low_C)
        self.span_C.copy_((x_CN.quantile(HIGH, 1) - low_C).clamp(min=LEAST_SPAN))

    def forward(self, x_CHW: Tensor) -> Tensor:
        low_C, span_C = self.low_C.to(x_CHW.device), self.span_C.to(x_CHW.device)
        return (x_CHW - low_C[:, None, None]) / span_C[:, None, None]

    def back(self, x_CHW: Tensor) -> Tensor:
        """Return the image in its own units."""
        low_C, span_C = self.low_C.to(x_CHW.device), self.span_C.to(x_CHW.device)
        return x_CHW * span_C[:, None, None] + low_C[:, None, None]


@dataclass(frozen=True)
class Pairs:
    """Windows that are to be restored, and how."""

    seen: Tensor
    """(B, images, C, w, w): what the model is given."""
    true: Tensor
    """(B, C, r w, r w)"""
    ids: list[str]
    """Row and column of each window's corner."""


def grounds(sides: tuple[int, int], *, guard: int, multiple: int = 1) -> Split:
    """Cut an image across its longer side into ground to train on, to choose by and to measure on.

    Args:
        sides: Rows and columns.
        guard: Pixels between two grounds, at least.
        multiple: What all sides and places are multiples of [pixel].

    Raises:
        ValueError: The image is too small.
    """
    long = int(sides[1] >= sides[0])
    side = sides[long]
    guard = -(-guard // multiple) * multiple
    train, val = (int(share * side) // multiple * multiple for share in SHARES)
    begins = (0, train + guard, train + val + 2 * guard)
    counts = (train, val, side // multiple * multiple - begins[2])
    least = 2 * SSIM_REACH + 1
    if min(counts) < multiple or min(counts[2], sides[1 - long]) < least:
        raise ValueError(
            f"expected an image that can be cut into three grounds with {guard} px between, the "
            f"last of {least} px or more each way, got {sides[0]} x {sides[1]} px; take a larger "
            "one, or make `guard` smaller"
        )
    masks = []
    for begin, count in zip(begins, counts, strict=True):
        at = [slice(0, one // multiple * multiple) for one in sides]
        at[long] = slice(begin, begin + count)
        mask = np.zeros(sides, np.bool_)
        mask[tuple(at)] = True
        masks.append(mask)
    return Split(*masks)


def box(mask_HW: np.ndarray) -> Box:
    """Return the rows and columns that a ground fills."""
    rows, columns = (np.flatnonzero(mask_HW.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def whole_image(cube: Cube) -> Tensor:
    """Return a cube as an image (C, H, W) that is measured everywhere, in physical units.

    Raises:
        ValueError: Pixels have no measurement.
    """
    missing = int((~cube.valid_HW).sum())
    if missing:
        raise ValueError(
            f"{cube.name}: expected a measurement in all {cube.valid_HW.size} pixels, got none in "
            f"{missing}; cut the image (crop:), or leave out the bands that have gaps (leave_out:)"
        )
    return torch.from_numpy(cube.physical_CHW())


def filled_image(cube: Cube) -> Tensor:
    """Return a cube as an image (C, H, W), the mean spectrum where it has no measurement."""
    x_CHW = torch.from_numpy(cube.physical_CHW())
    known_HW = torch.from_numpy(cube.valid_HW)
    x_CHW[:, ~known_HW] = x_CHW[:, known_HW].mean(1, keepdim=True)
    return x_CHW


def pair_batches(
    scene: Callable[[int], tuple[Tensor, Tensor]],
    state: Mapping[str, Any] | None,
    *,
    window: int,
    ratio: int,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[Pairs, dict[str, Any]]]:
    """Yield a process's endless batches, each with the state to go on from after it.

    What is drawn is a function of the seed and the batch's number alone.

    Args:
        scene: From a batch's number to what the model is given of the training ground (images, C,
            H, W), and the truth (C, r H, r W).
        state: Number to begin at; None: the first.
        window: Side w of what the model is given [pixel].
        ratio: Pixels r of the truth along one of these.
        batch_size: Windows in a batch.
        seed: What they are drawn from.

    Raises:
        ValueError: The training ground is smaller than a window.
    """
    rank, world = distributed.rank(), distributed.world()
    begin = state["position"] if state else 0
    while True:
        number, begin = begin + rank, begin + world
        seen_NCHW, true_CHW = scene(number)
        sides = (seen_NCHW.shape[2], seen_NCHW.shape[3])
        if min(sides) < window:
            raise ValueError(
                f"expected training ground of at least {window} x {window} px for the window, got "
                f"{sides[0]} x {sides[1]}; make `window` smaller or take a larger image"
            )
        rng = np.random.default_rng([seed, 1, number])
        seen, true, ids = list[Tensor](), list[Tensor](), list[str]()
        for _ in range(batch_size):
            row, column = (int(rng.integers(0, side - window + 1)) for side in sides)
            turn = int(rng.integers(SYMMETRIES))
            at, large = _window(row, column, window), _window(row * ratio, column * ratio,
                                                             window * ratio)  # fmt: skip
            seen.append(turned(seen_NCHW[..., *at], turn))
            true.append(turned(true_CHW[..., *large], turn))
            ids.append(f"{row} {column}")
        yield Pairs(torch.stack(seen), torch.stack(true), ids), {"position": begin}


def charbonnier(found: Tensor, true: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Return the mean absolute error, rounded off at 0.

    Source: Lai et al. 2017, arXiv:1704.03915, eq. 3.
    """
    return ((found - true).square() + eps**2).sqrt().mean()


def scores(
    found_CHW: np.ndarray, true_CHW: np.ndarray, scale: BandRange, where: Box, *, ratio: int = 1
) -> dict[str, float]:
    """Return how near an image comes to the true one on one ground.

    PSNR, SSIM and RMSE are of bands brought to 0..1, SAM and ERGAS of the image's own units.
    """
    found, true = (torch.from_numpy(np.asarray(one, np.float32)) for one in (found_CHW, true_CHW))
    report = restoration_report(
        scale(found)[:, *where].numpy(), scale(true)[:, *where].numpy(), peak=1.0, ratio=ratio
    )
    own = restoration_report(
        found[:, *where].numpy(), true[:, *where].numpy(), peak=1.0, ratio=ratio
    )
    return report | {name: own[name] for name in ("sam", "ergas")}


def val_psnr(found_CHW: Tensor, true_CHW: Tensor) -> dict[str, float]:
    """Return `val_psnr` [dB] of scaled images."""
    found, true = (image.cpu().double().numpy() for image in (found_CHW, true_CHW))
    return {"val_psnr": psnr(found, true, peak=1.0)}


def _window(row: int, column: int, side: int) -> Box:
    return slice(row, row + side), slice(column, column + side)
