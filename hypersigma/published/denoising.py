"""The published denoising, (B, C, H, W) -> (B, C, H, W)."""

from torch import Tensor

from hypersigma.published.restoration import FusedRestorer, SpatialRestorer, conv3
from hypersigma.published.setting import Setting


class SpatialDenoiser(SpatialRestorer):
    """SpatSIGMA for denoising."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, learnt_positions=True, upsample=True)
        self.conv_tail = conv3(setting.in_chans, setting.in_chans)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # type: ignore[override]  # the published call
        return self.conv_tail(self.restored(x_BCHW))


class FusedDenoiser(FusedRestorer):
    """HyperSIGMA for denoising."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, learnt_positions=True, upsample=True, drop_path=0.1)
        self.conv_tail = conv3(setting.in_chans, setting.in_chans)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv_tail(self.restored(x_BCHW))
