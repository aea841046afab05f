"""The published super-resolution: an image, and itself enlarged by bicubic interpolation.

Shape letters: B batch, C bands, H W pixels, s scale.
"""

import torch
from torch import Tensor, nn

from hypersigma.published.restoration import FusedRestorer, SpatialRestorer, conv3
from hypersigma.published.setting import Setting


class SpatialUpscaler(SpatialRestorer):
    """SpatSIGMA for super-resolution, (B, C, H, W) and (B, C, s H, s W) -> (B, C, s H, s W)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, learnt_positions=False, upsample=False)
        bands = setting.in_chans
        self.upsample = doublings(bands, setting.scale)
        self.skip_conv = conv3(bands, bands)
        self.conv_tail = conv3(bands, bands)

    def forward(  # type: ignore[override]  # the published call
        self, x_BCHW: Tensor, enlarged: Tensor
    ) -> Tensor:
        fine = self.upsample(self.restored(x_BCHW))
        return self.conv_tail(fine + self.skip_conv(enlarged))


class FusedUpscaler(FusedRestorer):
    """HyperSIGMA for super-resolution, (B, C, H, W) and (B, C, s H, s W) -> (B, C, s H, s W)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, learnt_positions=False, upsample=False, drop_path=0.0)
        bands = setting.in_chans
        self.upsample = doublings(bands, setting.scale)
        self.skip_conv = conv3(bands, bands)
        self.conv_tail = conv3(2 * bands, bands)

    def forward(self, x_BCHW: Tensor, enlarged: Tensor) -> Tensor:
        fine = self.upsample(self.restored(x_BCHW))
        return self.conv_tail(torch.cat((fine, self.skip_conv(enlarged)), 1))


def doublings(bands: int, scale: int) -> nn.Sequential:
    """Return the layers that enlarge an image `scale` times.

    Raises:
        ValueError: `scale` is no power of 2.
    """
    if scale < 2 or scale & (scale - 1):
        raise ValueError(f"expected a scale of 2, 4, 8, ..., got {scale}")
    layers: list[nn.Module] = []
    for _ in range(scale.bit_length() - 1):
        layers += [conv3(bands, 4 * bands), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)
