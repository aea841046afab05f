"""A scene in other units than those that a model was trained on is no scene for it."""

import numpy as np
import torch
from torch import nn

from hypersigma.cubes.preprocess import Standardize
from hypersigma.mapping.sources import Source
from hypersigma.tasks.restored import BandRange

FARTHEST = 30.0
"""Deviations that half of the values may be away from those trained on: other units are off by
factors of ten or more, other seasons and atmospheres by a few deviations."""
LOOKED_AT = 5
"""Rows that are read for it, evenly over the scene."""


def check_values(model: nn.Module, source: Source) -> None:
    """Refuse a scene whose values are far from those that the model was trained on.

    Args:
        model: With `inputs` or `scale`, fitted.
        source: As it is opened for the model; of two dates the first is looked at.

    Raises:
        ValueError: They are.
    """
    parts = [
        part for name in ("inputs", "scale")
        if isinstance(part := getattr(model, name, None), Standardize | BandRange)
    ]  # fmt: skip
    places = np.linspace(0, source.height - 1, LOOKED_AT).astype(int).tolist()
    each = [source.rows(row, row + 1) for row in places]
    known_CN = np.concatenate([x_CnW[:, valid_nW] for x_CnW, valid_nW in each], 1)
    if not parts or not known_CN.size:
        return
    middle_C, spread_C = _range(parts[0])
    known_CN = known_CN[: len(middle_C)]
    away = np.abs(known_CN - middle_C[:, None]) / spread_C[:, None]
    if np.nanmedian(away) > FARTHEST:
        raise ValueError(
            f"{source.name}: expected values as the model was trained on, {middle_C.mean():.3g} in "
            f"the mean of all bands, got {np.nanmean(known_CN):.3g}; the units differ: say scale:, "
            "the stored number of a physical 1, or make the scene by the same recipe"
        )


def _range(part: Standardize | BandRange) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of each band, and what counts as a deviation."""
    pair: tuple[torch.Tensor, torch.Tensor]
    if isinstance(part, Standardize):
        pair = part.mean_C, part.std_C
    else:
        # A band's range is about four deviations.
        pair = part.low_C + part.span_C / 2, part.span_C / 4
    return pair[0].cpu().numpy(), pair[1].cpu().numpy()
