"""The published detector of change between two multispectral images, pixel by pixel.

Shape letters: B batch, C bands, H W pixels, D width, h w map, K channels.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES
from hypersigma.published.encoders import (
    Spatial,
    Spectral,
    add_numbered,
    apply_numbered,
    scales,
    sized,
)
from hypersigma.published.setting import Setting
from hypersigma.published.trunk import Trunk
from hypersigma.published.unused import add_unused, with_biases

ENCODER_BANDS = 100
"""Bands that the image is mapped to, those of the pretrained encoders."""

CHANNELS = 128
"""K"""


class MultispectralChange(Trunk):
    """Logits of unchanged and changed, (B, C, H, W) twice -> (B, 2, H, W)."""

    def __init__(self, setting: Setting) -> None:
        dim = SIZES[setting.size].dim
        inner = replace(setting, in_chans=ENCODER_BANDS)
        # The two deepest levels have one grid here.
        necks = [*scales(dim, 2)[:3], nn.MaxPool2d(2)]
        super().__init__(
            Spatial(inner, learnt_positions=False, num_points=4, necks=necks),
            Spectral(inner, size=sized(setting.size, 0), learnt_positions=False),
            gates=1, hidden=dim, channels=dim,
        )  # fmt: skip
        self.dim_red = nn.Conv2d(setting.in_chans, ENCODER_BANDS, 1)
        add_numbered(self, "fuse_layer_", [fusion(dim) for _ in range(4)])
        self.main_clf_1 = nn.Conv2d(CHANNELS, 2, 1)
        add_unused(self.spec_encoder, {f"l{i}.weight": (128, dim) for i in (2, 3, 4)})
        square = (CHANNELS, CHANNELS, 3, 3)
        add_unused(self, {"conv_features.weight": (CHANNELS, CHANNELS, 1, 1)})
        add_unused(self, with_biases({f"smooth_layer_{i}": square for i in (1, 2, 3)}))

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        dates = [self.levels(x_BCHW) for x_BCHW in (first_BCHW, second_BCHW)]
        pairs = [torch.cat(pair, 1) for pair in zip(*dates, strict=True)]
        *shallower, x_BKhw = apply_numbered(self, "fuse_layer_", pairs)
        for level in reversed(shallower):
            x_BKhw = level + resized(x_BKhw, level)
        return resized(self.main_clf_1(x_BKhw), first_BCHW)

    def levels(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the weighed levels (B, D, h, w) of one date, by ascending depth."""
        mapped = self.dim_red(x_BCHW)
        return self.enhance(self.maps(mapped), mapped)


def fusion(dim: int) -> nn.Sequential:
    """Return the layers from both dates' levels, one behind the other, to K channels."""
    return nn.Sequential(nn.Conv2d(2 * dim, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), nn.ReLU())


def resized(x_BKhw: Tensor, like_BKhw: Tensor) -> Tensor:
    """Return a map at another's size, bilinear."""
    return F.interpolate(x_BKhw, size=like_BKhw.shape[2:], mode="bilinear", align_corners=False)
