"""The published masked autoencoders: `loss, prediction, mask = model(images, noise)`.

Shape letters: B batch, C bands, H W pixels, L tokens, V values a token.
"""

from torch import Tensor

from hypersigma import masking
from hypersigma.backbones.sizes import SIZES
from hypersigma.mae import Mae, MaeConfig, SpatialMae, SpectralMae
from hypersigma.published.setting import Setting


class _AsPublished(Mae):
    """A masked autoencoder that takes and returns what the published one does."""

    unused = ("pos_embed",)

    def forward(  # type: ignore[override]  # the published call
        self, x_BCHW: Tensor, noise_BL: Tensor | None = None, *, mask_ratio: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, the prediction (B, L, V) and the mask (B, L), 1 where hidden.

        Args:
            x_BCHW: Images.
            noise_BL: Ranks the tokens, the smallest stay visible; drawn if not given.
            mask_ratio: Share of tokens that are hidden, from this call on.
        """
        if mask_ratio is not None:
            self.keep = masking.keep_count(self.pos_embed.shape[1], mask_ratio)
        out = super().forward(x_BCHW, noise=noise_BL)
        return out.loss, out.prediction, out.mask.to(out.prediction.dtype)


class PublishedSpatialMae(_AsPublished, SpatialMae):
    """Masked autoencoder of patches."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(
            SIZES[setting.size], bands=setting.in_chans, image_size=setting.img_size,
            patch_size=setting.patch_size, config=MaeConfig(setting.mask_ratio, compat=True),
        )  # fmt: skip


class PublishedSpectralMae(_AsPublished, SpectralMae):
    """Masked autoencoder of bands."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(
            SIZES[setting.size], bands=setting.in_chans, image_size=setting.img_size,
            config=MaeConfig(setting.mask_ratio, compat=True),
        )  # fmt: skip
