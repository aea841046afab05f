"""From one set of bands to another by wavelength: what a model learnt of some bands, for others.

Shape letters: K bands of the model, N bands of the data, W windows, H W pixels, P = H * W.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hypersigma.inputs import WAVELENGTH_TOLERANCE_NM, measured


@dataclass(frozen=True)
class BandMap:
    """How the spectrum that a model expects comes about from the data's."""

    matrix: Tensor
    """(K, N) float32: expected spectrum = matrix @ spectrum. Rows sum to 1; they are 0 for bands
    of the model that the data do not reach."""

    words: str
    """Empty if the bands are the model's own."""


def map_bands(seen: Sequence[Sequence[float]], count: int, data: Sequence[float]) -> BandMap:
    """Find the bands that a model knows in those of other data.

    A model that saw one set of bands knows them by their wavelength. One that saw windows sliding
    over a sensor knows no wavelength by its number: number k is a relative place between the first
    and the last band, whose wavelengths it is told. That place is the mean over its windows.

    Args:
        seen: Band centres [nm] of each sensor that the model was trained on, in order.
        count: Bands K that it saw at a time, neighbours in one of them.
        data: Band centres [nm] of the data.

    Raises:
        ValueError: No sensor has as many bands, or the data have none that the model knows.
    """
    windows_WK = _windows(seen, count)
    data_N = np.asarray(data, float)
    if len(data_N) == count and (_distance(windows_WK, data_N) <= WAVELENGTH_TOLERANCE_NM).any():
        return BandMap(torch.eye(count), "")
    # Platforms of one sensor differ by less than this, windows that slide by more.
    slides = bool((_distance(windows_WK, windows_WK[0]) > _step(windows_WK[0]) / 2).any())
    if slides and count > 1 and data_N[0] != data_N[-1]:
        matrix_KN = band_matrix(_places(windows_WK).mean(0), _places(data_N[None])[0])
        how = f"by their place in the window (seen in windows of {count} anywhere)"
    else:
        matrix_KN = band_matrix(windows_WK.mean(0), data_N)
        how = f"by wavelength (seen at {_range(windows_WK)})"
    known, used = matrix_KN.any(dim=1), matrix_KN.any(dim=0)
    if not known.any():
        raise ValueError(
            f"expected bands within {_range(windows_WK)}, which the model was trained on, "
            f"got {_range(data_N)}"
        )
    words = f"{count} bands to {len(data_N)} at {_range(data_N)} {how}"
    if not known.all():
        words += f"; {int((~known).sum())} of the {count} are beyond the data and count as missing"
    if not used.all():
        words += f"; {int((~used).sum())} of the data's get weight 0"
    return BandMap(matrix_KN, words)


def band_matrix(old_K: np.ndarray, new_N: np.ndarray) -> Tensor:
    """Return (K, N): how much of each new band makes up an old one, at places on one axis.

    Between two new bands it interpolates; of bands narrower than the old ones it takes a mean, in
    a triangle as wide as one step of the old ones to either side. It is the identity for the same
    places, exact for spectra that are linear between new bands, and its rows sum to 1, but are 0
    for old bands more than a step beyond the new ones. Places need no order: detectors overlap.
    """
    order = np.argsort(new_N, kind="stable")
    last = len(new_N) - 1
    at_K = np.interp(old_K, new_N[order], np.arange(len(new_N)))
    # A whole number of bands keeps the triangle's centre of mass where its tip is.
    half_K = np.rint(_nearest_step(at_K))
    half_K = np.clip(half_K, 1, np.floor(np.minimum(at_K, last - at_K)) + 1)
    matrix_KN = np.maximum(0, 1 - np.abs(np.arange(len(new_N)) - at_K[:, None]) / half_K[:, None])
    matrix_KN /= matrix_KN.sum(1, keepdims=True)
    step = max(_step(old_K), _step(new_N))
    matrix_KN[(old_K < new_N.min() - step) | (old_K > new_N.max() + step)] = 0
    out = np.empty_like(matrix_KN)
    out[:, order] = matrix_KN
    return torch.from_numpy(out).float()


def mix_bands(stored_NHW: Tensor, matrix_KN: Tensor) -> Tensor:
    """Return what would be stored of the model's bands, (K, H, W) float32.

    A band is NaN, no measurement, where less than half of what makes it up was measured.

    Args:
        stored_NHW: The data's stored numbers; scale and units stay.
        matrix_KN: Of a `BandMap`.
    """
    valid_NP = measured(stored_NHW).flatten(1)
    values_NP = torch.where(valid_NP, stored_NHW.flatten(1).float(), 0.0)
    share_KP = matrix_KN @ valid_NP.float()
    mixed_KP = (matrix_KN @ values_NP / share_KP).masked_fill(share_KP < 0.5, torch.nan)
    return mixed_KP.unflatten(1, stored_NHW.shape[1:])


def _windows(seen: Sequence[Sequence[float]], count: int) -> np.ndarray:
    windows = [
        np.lib.stride_tricks.sliding_window_view(np.asarray(one, float), count)
        for one in seen
        if len(one) >= count
    ]
    if not windows:
        raise ValueError(
            f"expected a sensor of at least {count} bands, got {[len(one) for one in seen]}"
        )
    return np.concatenate(windows)


def _places(wavelength_WK: np.ndarray) -> np.ndarray:
    first, last = wavelength_WK[:, :1], wavelength_WK[:, -1:]
    return (wavelength_WK - first) / (last - first)


def _distance(windows_WK: np.ndarray, other_K: np.ndarray) -> np.ndarray:
    return np.abs(windows_WK - other_K).max(1)


def _nearest_step(places_K: np.ndarray) -> np.ndarray:
    """Return the distance of each place to its nearest neighbour."""
    order = np.argsort(places_K, kind="stable")
    steps = np.pad(np.diff(places_K[order]), 1, constant_values=np.inf)
    out = np.empty(len(places_K))
    out[order] = np.minimum(steps[:-1], steps[1:])
    return out


def _step(places: np.ndarray) -> float:
    return float(np.median(np.diff(np.sort(places)))) if len(places) > 1 else 0.0


def _range(wavelength: np.ndarray) -> str:
    return f"{wavelength.min():.0f}-{wavelength.max():.0f} nm"
