"""The published blind unmixing: abundances of materials, and the image mixed from them again.

Shape letters: B batch, C bands, H W pixels, h w map, R endmembers.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES
from hypersigma.published.encoders import Spatial, Spectral, add_numbered, apply_numbered, sized
from hypersigma.published.segmentation import enlarge
from hypersigma.published.setting import Setting
from hypersigma.published.trunk import Trunk, pointwise
from hypersigma.published.unused import add_unused, shapes_of

CHANNELS = 64
"""Channels of a level."""


class Unmixing(Trunk):
    """Abundances (B, R, H, W) that add up to 1, and the reconstruction (B, C, H, W).

    Takes (B, C, H, W). The columns of `decoder.decoder` are the spectra of the endmembers.
    """

    def __init__(self, setting: Setting) -> None:
        spatial = Spatial(setting, learnt_positions=False)
        dim, materials = SIZES[setting.size].dim, setting.num_endmembers
        spectral = None
        if setting.num_tokens:
            spectral = Spectral(
                setting, size=sized(setting.size, -1), learnt_positions=False, projections=("l4",)
            )
            add_unused(spectral, {f"l{i}.weight": (128, dim) for i in (1, 2, 3)})
        super().__init__(spatial, spectral, gates=4, hidden=32, channels=CHANNELS)
        add_numbered(self, "conv_features", [pointwise(dim, CHANNELS) for _ in range(4)])
        add_numbered(self, "conv", [unit(CHANNELS, CHANNELS, kernel) for kernel in (1, 1, 3, 3)])
        self.smooth = smoothing(fused=spectral is not None)
        self.conv5 = unit(CHANNELS, materials, 1)
        self.decoder = nn.Sequential(OrderedDict(decoder=pointwise(materials, setting.in_chans)))
        if spectral is not None:
            for name in ("conv2_", "conv3_", "conv4_"):
                add_unused(self, shapes_of(unit(2 * CHANNELS, CHANNELS, 3), f"{name}."))

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        levels = apply_numbered(self, "conv_features", self.maps(x_BCHW))
        deepest_first = self.enhance(levels, x_BCHW)[::-1]
        by_depth = apply_numbered(self, "conv", deepest_first)[::-1]
        pixels = self.smooth(enlarge(torch.cat(by_depth, 1), x_BCHW))
        abundance_BRHW = self.conv5(pixels).softmax(1)
        return abundance_BRHW, self.decoder(abundance_BRHW).relu()


def unit(width: int, channels: int, kernel: int) -> nn.Sequential:
    """Return a convolution with what follows it everywhere in this model."""
    return nn.Sequential(
        nn.Conv2d(width, channels, kernel, padding=kernel // 2), nn.LeakyReLU(0.02),
        nn.BatchNorm2d(channels), nn.Dropout(0.2),
    )  # fmt: skip


def smoothing(*, fused: bool) -> nn.Module:
    """Return the layers that mix the levels, pixel by pixel with their neighbours."""
    width = 4 * CHANNELS
    if not fused:
        return nn.Conv2d(width, CHANNELS, 3, padding=1)
    return nn.Sequential(*unit(width, 128, 3), nn.Conv2d(128, CHANNELS, 1))
