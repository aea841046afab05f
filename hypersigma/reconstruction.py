"""How well hidden tokens are predicted: the loss, and the predictions anyone could make.

Shape letters: B batch, L tokens, V values a token, P pixels a token (V = P * values of a pixel),
C bands, H W pixels, d coordinates.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hypersigma.masking import take

VARIANCE_EPS = 1e-6
"""Added to a token's variance before its root. Source: He et al. 2022, arXiv:2111.06377, code."""


def squared_error(prediction_BLV: Tensor, target_BLV: Tensor, weight_BLP: Tensor) -> Tensor:
    """Return the mean squared error over pixels by their weight, a scalar; 0 if none has any."""
    error_BLV = (prediction_BLV.float() - target_BLV.float()) ** 2
    error_BLP = error_BLV.unflatten(-1, (weight_BLP.shape[-1], -1)).mean(-1)
    total = weight_BLP.sum()
    return (error_BLP * weight_BLP).sum() / torch.where(total > 0, total, 1)


def token_statistics(values_BLV: Tensor, valid_BLP: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (B, L, 1) of each token's valid values.

    The deviation is that of the sample, and 1 for tokens of fewer than two values.
    """
    values_BLPv = values_BLV.float().unflatten(-1, (valid_BLP.shape[-1], -1))
    weight_BLPv = valid_BLP[..., None].expand_as(values_BLPv)
    count_BL1 = weight_BLPv.sum((-2, -1)).unsqueeze(-1)
    mean_BL1 = (values_BLPv * weight_BLPv).sum((-2, -1)).unsqueeze(-1) / count_BL1.clamp(min=1)
    square_BLPv = (values_BLPv - mean_BL1[..., None]) ** 2 * weight_BLPv
    variance_BL1 = square_BLPv.sum((-2, -1)).unsqueeze(-1) / (count_BL1 - 1).clamp(min=1)
    return mean_BL1, torch.where(count_BL1 > 1, (variance_BL1 + VARIANCE_EPS).sqrt(), 1.0)


def nearest_visible(values_BLV: Tensor, mask_BL: Tensor, places_BLd: Tensor) -> Tensor:
    """Return for each token the values (B, L, V) of the visible one whose place is nearest."""
    # By a product of matrices, squares of wavelengths would drown distances of less than 1 nm.
    distance_BLL = torch.cdist(places_BLd, places_BLd, compute_mode="donot_use_mm_for_euclid_dist")
    distance_BLL = distance_BLL.masked_fill(mask_BL[:, None, :], torch.inf)
    return take(values_BLV, distance_BLL.argmin(2))


def interpolation(mask_BL: Tensor, place_BL: Tensor) -> Tensor:
    """Return how much each visible token counts for each token (B, L, L); rows add up to 1.

    Linear between the visible tokens before and after a place on a line; beyond the outermost ones
    they count alone.
    """
    ahead_BLL = place_BL[:, None, :] - place_BL[:, :, None]  # [b, i, j]: from i to j
    hidden_B1L = mask_BL[:, None, :]
    below_BL = ahead_BLL.masked_fill(hidden_B1L | (ahead_BLL > 0), -torch.inf).max(2)
    above_BL = ahead_BLL.masked_fill(hidden_B1L | (ahead_BLL < 0), torch.inf).min(2)
    # The nearer one, or the only one there is, counts as much as the other is away.
    before, after = -below_BL.values, above_BL.values
    share = torch.where(before.isinf(), 1.0, before / (before + after).clamp(min=1e-12))
    share = torch.where(after.isinf(), 0.0, torch.where(before == 0, 0.0, share))
    weight_BLL = torch.zeros_like(ahead_BLL)
    weight_BLL.scatter_add_(2, below_BL.indices[..., None], (1 - share)[..., None])
    return weight_BLL.scatter_add_(2, above_BL.indices[..., None], share[..., None])


@dataclass
class BandErrors:
    """Squared errors of hidden pixels, added up over the bands of one sensor."""

    squares: dict[str, np.ndarray]
    """By whose prediction it is (band)."""
    pixels: np.ndarray
    """(band)"""

    @classmethod
    def empty(cls, bands: int) -> "BandErrors":
        """Return the errors of no pixel yet."""
        return cls({}, np.zeros(bands, np.int64))

    def add(
        self, predictions: dict[str, Tensor], true_CHW: Tensor, counted_CHW: Tensor, first: int
    ) -> None:
        """Add a tile's window of bands that begins at band `first`, counted from 0.

        Args:
            predictions: (C, H, W) by whose they are.
            true_CHW: What was hidden.
            counted_CHW: Which pixels count: hidden and measured.
            first: Of the sensor's bands.
        """
        window = slice(first, first + len(true_CHW))
        self.pixels[window] += counted_CHW.sum((1, 2)).cpu().numpy()
        for name, predicted_CHW in predictions.items():
            square_CHW = (predicted_CHW.double() - true_CHW) ** 2 * counted_CHW
            sums = self.squares.setdefault(name, np.zeros(len(self.pixels)))
            sums[window] += square_CHW.sum((1, 2)).cpu().numpy()

    def rmse(self, name: str) -> np.ndarray:
        """Return the root mean squared error of each band, NaN where no pixel was hidden."""
        with np.errstate(invalid="ignore"):
            return np.sqrt(self.squares[name] / self.pixels)

    def total(self, name: str) -> float:
        """Return the root mean squared error over all bands."""
        return float(np.sqrt(self.squares[name].sum() / max(1, self.pixels.sum())))
