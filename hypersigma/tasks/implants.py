"""Targets put into windows of an image, to learn from where nothing is labelled.

Shape letters: B batch, C bands, w window side.
"""

import torch
from torch import Tensor

LEAST, MOST = 0.1, 1.0
"""Share of a pixel that a target fills."""
BEYOND = 2.0
"""How far, at most, an unknown target's spectrum lies beyond one of the image, as seen from another
one of it, in multiples of their distance."""
LIGHT = 0.1
"""Deviation of the brightness of a known target, relative."""


def implanted(
    x_BCww: Tensor, count: int, side: int, rng: torch.Generator, target_C: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return windows with targets in them, and where these are, (B, w, w) bool.

    A target is a rectangle that is filled to some share with another spectrum: the known one, or
    one of another place of the batch, or one beyond it.

    Args:
        x_BCww: Windows, as in the cube; changed only in a copy.
        count: Targets in a window, at most; at least one.
        side: Sides of a target, at most [pixel].
        rng: What is drawn from.
        target_C: Spectrum of a known target.
    """
    out, where = x_BCww.clone(), torch.zeros(x_BCww.shape[0], *x_BCww.shape[2:], dtype=torch.bool)
    spectra_NC = x_BCww.transpose(0, 1).flatten(1).T
    spectra_NC = spectra_NC[spectra_NC.isfinite().all(1)]
    window = x_BCww.shape[-1]
    for image_Cww, hit_ww in zip(out, where, strict=True):
        for _ in range(_integer(1, count + 1, rng)):
            height, width = (_integer(1, side + 1, rng) for _ in range(2))
            row, column = (_integer(0, window - s + 1, rng) for s in (height, width))
            share = _number(LEAST, MOST, rng)
            at = (slice(row, row + height), slice(column, column + width))
            spectrum_C = _unknown(spectra_NC, rng) if target_C is None else _lit(target_C, rng)
            image_Cww[:, *at] += share * (spectrum_C[:, None, None] - image_Cww[:, *at])
            hit_ww[at] = True
    return out, where & out.isfinite().all(1)


def _unknown(spectra_NC: Tensor, rng: torch.Generator) -> Tensor:
    one, other = (spectra_NC[_integer(0, len(spectra_NC), rng)] for _ in range(2))
    return one + _number(0, BEYOND, rng) * (one - other)


def _lit(target_C: Tensor, rng: torch.Generator) -> Tensor:
    return target_C * (1 + LIGHT * torch.randn((), generator=rng))


def _integer(low: int, high: int, rng: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=rng))


def _number(low: float, high: float, rng: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))
