"""The published detectors of targets and anomalies, one score a pixel.

Shape letters: B batch, C bands, H W pixels, h w map, K channels.
"""

import torch
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES
from hypersigma.published.encoders import Spatial, Spectral, band_convolutions, sized
from hypersigma.published.setting import Setting
from hypersigma.published.trunk import Trunk, pointwise
from hypersigma.published.unused import add_unused

CHANNELS = 128
"""K"""


class Detector(Trunk):
    """What both detectors share: the levels added up, and weighed by the spectrum if it is fused.

    The published spatial encoder has no final norm.
    """

    def __init__(self, setting: Setting) -> None:
        size = SIZES[setting.size]
        necks = [pointwise(size.dim, CHANNELS) for _ in size.levels]
        spatial = Spatial(setting, learnt_positions=True, norm=False, necks=necks)
        spectral = None
        if setting.num_tokens:
            spectral = Spectral(setting, size=sized(setting.size, -1), learnt_positions=True)
            add_unused(spectral, band_convolutions(setting.num_tokens, 1))
        super().__init__(spatial, spectral, gates=1, hidden=32, channels=CHANNELS)
        self.conv_features = pointwise(CHANNELS, CHANNELS)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Return the map (B, K, h, w) that is scored."""
        image_BKhw = torch.stack(self.maps(x_BCHW)).sum(0)
        return self.enhance([self.conv_features(image_BKhw)], x_BCHW)[0]


class TargetDetector(Detector):
    """Likeness of every pixel to a spectrum, (B, C, H, W) and (B, C) -> (B, h, w)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.conv_ts = nn.Sequential(
            nn.Linear(setting.in_chans, CHANNELS, bias=False), nn.LayerNorm(CHANNELS), nn.GELU(),
            nn.Linear(CHANNELS, CHANNELS, bias=False),
        )  # fmt: skip

    def forward(self, x_BCHW: Tensor, target_BC: Tensor) -> Tensor:
        return torch.einsum("bkhw,bk->bhw", self.features(x_BCHW), self.conv_ts(target_BC))


class AnomalyDetector(Detector):
    """Logits of background and anomaly, (B, C, H, W) -> (B, 2, h, w)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.conv_fc = nn.Sequential(pointwise(CHANNELS, 2))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv_fc(self.features(x_BCHW))
