"""Answers of a pixel and its neighbours averaged, as far as they look alike.

Shape letters: B batch, G channels of the guide, K answers, H W pixels, n neighbours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GUIDE = 8
"""Channels G in which pixels are compared."""
FIRST_SPREAD = 2.0
"""Distance [pixel] at which a neighbour counts exp(-1/2), before training."""


class Smooth(nn.Module):
    """Mean over neighbours, (B, K, H, W) and features (B, F, H, W) -> (B, K, H, W).

    A neighbour counts less with its distance and with that of its guide, a linear map of the
    features that is 0 before training: then this is a Gaussian filter.

    Args:
        features: Channels F.
        reach: Pixels to each side.

    Source: Tomasi & Manduchi 1998, doi:10.1109/ICCV.1998.710815 (bilateral filter); here with a
    learnt guide and spread.
    """

    def __init__(self, features: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.guide = nn.Conv2d(features, GUIDE, 1, bias=False)
        nn.init.normal_(self.guide.weight, std=1e-3)
        self.log_spread = nn.Parameter(torch.tensor(FIRST_SPREAD).log())
        line = torch.arange(-reach, reach + 1)
        squares_n = (line[:, None].square() + line[None].square()).flatten()
        self.squares_n: Tensor
        self.register_buffer("squares_n", squares_n, persistent=False)

    def forward(self, answers_BKHW: Tensor, features_BFHW: Tensor) -> Tensor:
        guide = self.guide(features_BFHW)
        away_BnHW = (self._neighbours(guide) - guide[:, :, None]).square().sum(1)
        near_n = self.squares_n * torch.exp(-2 * self.log_spread)
        outside = self._neighbours(torch.zeros_like(guide[:, :1]), fill=1.0)[:, 0]
        energy_BnHW = -0.5 * (near_n[:, None, None] + away_BnHW)
        weight_BnHW = energy_BnHW.masked_fill(outside > 0, -torch.inf).softmax(1)
        return (self._neighbours(answers_BKHW) * weight_BnHW[:, None]).sum(2)

    def _neighbours(self, x_BCHW: Tensor, fill: float = 0.0) -> Tensor:
        """Return the neighbours of each pixel (B, C, n, H, W), `fill` beyond the border."""
        side = 2 * self.reach + 1
        padded = F.pad(x_BCHW, [self.reach] * 4, value=fill)
        columns = F.unfold(padded, side)
        height, width = x_BCHW.shape[2:]
        return columns.unflatten(2, (height, width)).unflatten(1, (x_BCHW.shape[1], side**2))
