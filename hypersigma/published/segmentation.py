"""The published segmentation of tiles, (B, C, H, W) -> logits (B, H * W, K).

As published but for the order of linear steps that commute: channels are reduced on the token
grid and enlarged to pixels afterwards, a sixth of the memory and less (spatial: a 24th).

Shape letters: B batch, C bands, H W pixels, L = H * W, D width, h w map, R reduced width,
K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES
from hypersigma.published.classification import SQUEEZED, linear_layers, linear_shapes
from hypersigma.published.encoders import (
    Spatial,
    Spectral,
    add_numbered,
    apply_numbered,
    band_convolutions,
    scales,
    sized,
)
from hypersigma.published.setting import Setting
from hypersigma.published.trunk import Trunk, pointwise
from hypersigma.published.unused import add_unused, with_biases


class SpatialSegmentation(Spatial):
    """SpatSIGMA for segmentation; a single tile comes back without batch axis, as published."""

    def __init__(self, setting: Setting) -> None:
        dim, classes = SIZES[setting.size].dim, setting.num_classes
        super().__init__(setting, learnt_positions=False, necks=scales(dim, setting.patch_size))
        self.classifier = linear_layers(4 * dim, classes)
        add_unused(self, {"DR.weight": (256, 4 * dim, 1, 1)})
        add_unused(self, with_biases({"cls": (classes, 4 * dim, 1, 1)}))

    def forward(self, x_BCHW: Tensor) -> Tensor:  # type: ignore[override]  # the published call
        deepest_first = self.maps(x_BCHW)[::-1]
        weight, bias = (self.classifier.get_parameter(f"0.{name}") for name in ("weight", "bias"))
        parts = weight.chunk(len(deepest_first), 1)
        reduced = [
            enlarge(F.conv2d(x_BDhw, part_RD[..., None, None]), x_BCHW)
            for x_BDhw, part_RD in zip(deepest_first, parts, strict=True)
        ]
        pixels_BLR = torch.stack(reduced).sum(0).flatten(2).transpose(1, 2) + bias
        return self.classifier[1:](pixels_BLR).squeeze(0)


class FusedSegmentation(Trunk):
    """HyperSIGMA for segmentation; the tile size is part of its weights."""

    def __init__(self, setting: Setting) -> None:
        dim, classes = SIZES[setting.size].dim, setting.num_classes
        super().__init__(
            Spatial(setting, learnt_positions=True, necks=scales(dim, setting.patch_size)),
            Spectral(setting, size=sized(setting.size, 0), learnt_positions=True),
            gates=4, hidden=128, channels=dim,
        )  # fmt: skip
        add_numbered(self, "DR", [pointwise(dim, SQUEEZED) for _ in range(4)])
        self.conv = nn.Conv2d(4 * SQUEEZED, 128, 1)
        self.cls = nn.Conv2d(128, classes, 1)
        add_unused(self, {"conv_features.weight": (128, dim, 1, 1)})
        add_unused(self.spat_encoder, linear_shapes("classifier", 49152, classes))
        add_unused(self.spec_encoder, band_convolutions(setting.num_tokens, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        reduced = apply_numbered(self, "DR", self.enhance(self.maps(x_BCHW)[::-1], x_BCHW))
        pixels_BRHW = torch.cat([enlarge(x_BRhw, x_BCHW) for x_BRhw in reduced], 1)
        return self.cls(self.conv(pixels_BRHW)).flatten(2).transpose(1, 2)


def enlarge(x_BRhw: Tensor, like_BCHW: Tensor) -> Tensor:
    """Return a map at an image's size, bilinear, corner on corner."""
    size = like_BCHW.shape[2:]
    return F.interpolate(x_BRhw, size=size, mode="bilinear", align_corners=True)
