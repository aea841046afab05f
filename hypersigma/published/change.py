"""The published detectors of change between two dates, one label for the middle pixel of a window.

Shape letters: B batch, C bands, w window pixels, D width, h w map, K channels.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES
from hypersigma.published.encoders import Spatial, Spectral, add_numbered, apply_numbered
from hypersigma.published.setting import Setting
from hypersigma.published.trunk import Trunk, pointwise

COMPARED = 64
"""Channels of each level of the compared dates."""

CLASSIFIER_WIDTHS = {5: (256, 128), 7: (128, 64, 64)}
"""Widths of the 3 x 3 convolutions that take a token grid of this side down to one token."""


class ChangeDetector(Trunk):
    """Change of the middle pixel, (B, C, w, w) twice -> logits (B, 2) of changed and unchanged.

    Raises:
        ValueError: Window and patch give a token grid that none was published for.
    """

    def __init__(self, setting: Setting) -> None:
        size = SIZES[setting.size]
        spatial = Spatial(setting, learnt_positions=False)
        spectral, width = None, 64
        if setting.num_tokens:
            width = setting.num_tokens
            spectral = Spectral(
                setting, size=size, learnt_positions=False, projections=("l1", "l2", "l3", "l4")
            )
        super().__init__(spatial, spectral, gates=4, hidden=32, channels=width)
        add_numbered(self, "conv_features", [pointwise(size.dim, width) for _ in range(4)])
        add_numbered(self, "conv", [comparison(width, kernel) for kernel in (1, 1, 3, 3)])
        self.BCD_classifier = window_classifier(spatial.grid[0])

    def forward(self, first_BCww: Tensor, second_BCww: Tensor) -> Tensor:
        pairs = zip(self.levels(first_BCww), self.levels(second_BCww), strict=True)
        deepest_first = [(first - second).abs() for first, second in pairs][::-1]
        compared = torch.cat(apply_numbered(self, "conv", deepest_first), 1)
        return self.BCD_classifier(compared).flatten(1)

    def levels(self, x_BCww: Tensor) -> list[Tensor]:
        """Return the levels (B, K, h, w) of one date, by ascending depth."""
        return self.enhance(apply_numbered(self, "conv_features", self.maps(x_BCww)), x_BCww)


def comparison(width: int, kernel: int) -> nn.Sequential:
    """Return the layers that a level's difference passes through."""
    half = width // 2
    layers = nn.Sequential(
        nn.Conv2d(width, half, kernel, padding=kernel // 2), nn.BatchNorm2d(half), nn.ReLU(),
        nn.Conv2d(half, COMPARED, 1), nn.BatchNorm2d(COMPARED), nn.ReLU(),
    )  # fmt: skip
    return nn.Sequential(OrderedDict(double_conv=layers))


def window_classifier(side: int) -> nn.Sequential:
    """Return the layers from a grid of `side` x `side` tokens to two logits."""
    if side not in CLASSIFIER_WIDTHS:
        raise ValueError(
            f"expected img_size and patch_size that give a grid of 5 or 7 tokens a side, got {side}"
        )
    layers: list[nn.Module] = []
    width = 4 * COMPARED
    for wider in CLASSIFIER_WIDTHS[side]:
        layers += [nn.Conv2d(width, wider, 3), nn.ReLU()]
        width = wider
    return nn.Sequential(*layers, nn.Conv2d(width, 2, 1))
