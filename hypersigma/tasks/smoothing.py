"""Answers of a pixel and its neighbours averaged, as far as they look alike.

Shape letters: B batch, G channels of the guide, K answers, H W pixels, n neighbours.
"""

from collections.abc import Iterator

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
        guide_BGHW = self.guide(features_BFHW)
        # Neighbours are views, one after another: all at once they are the largest tensor of a map.
        away_BnHW = torch.stack(
            [(one - guide_BGHW).square().sum(1) for one in self._neighbours(guide_BGHW)], 1
        )
        near_n = self.squares_n * torch.exp(-2 * self.log_spread)
        inside = torch.ones_like(guide_BGHW[:1, :1])
        outside_1nHW = torch.cat([one == 0 for one in self._neighbours(inside)], 1)
        energy_BnHW = -0.5 * (near_n[:, None, None] + away_BnHW)
        weight_BnHW = energy_BnHW.masked_fill(outside_1nHW, -torch.inf).softmax(1)
        smoothed = torch.zeros_like(answers_BKHW)
        for one, weight_BHW in zip(
            self._neighbours(answers_BKHW), weight_BnHW.unbind(1), strict=True
        ):
            smoothed = smoothed + one * weight_BHW[:, None]
        return smoothed

    def _neighbours(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        """Yield each neighbour of all pixels (B, C, H, W), 0 beyond the border."""
        height, width = x_BCHW.shape[2:]
        padded = F.pad(x_BCHW, [self.reach] * 4)
        for row in range(2 * self.reach + 1):
            for column in range(2 * self.reach + 1):
                yield padded[..., row : row + height, column : column + width]
