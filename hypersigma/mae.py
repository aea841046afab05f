"""Masked autoencoders: hide most tokens, predict their pixels from the rest.

Two independent ones, whose tokens are patches of pixels (spatial) or bands (spectral). The names
and shapes of their state dict are the published ones, in both modes:

- default: the encoder knows where a token is, and the spectral one, as its decoder, knows the
  wavelength of every band;
- `compat`: as published, the encoder knows no positions, nor does the spectral decoder, which
  predicts the same image for every hidden band.

What is not learnt is frozen: `decoder_pos_embed`, and `pos_embed` in `compat` and if spectral.

Shape letters: B batch, C bands, H W pixels, L tokens, K visible tokens, V values a token,
P pixels a token (V = P * bands a token), D width.

Source: He et al. 2022, arXiv:2111.06377; Wang et al. 2025, doi:10.1109/TPAMI.2025.3557581.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hypersigma import masking
from hypersigma.backbones.sizes import SIZES, Size, SizeName, encoder_blocks
from hypersigma.layers.block import NORM_EPS, block_stack, init_linear, run_block
from hypersigma.layers.patch_embed import PatchEmbed, patchify
from hypersigma.layers.positions import sincos_2d, sincos_wavelength, window_positions


@dataclass(frozen=True)
class MaeOutput:
    """What a masked autoencoder returns."""

    loss: Tensor
    """Mean squared error over the valid pixels of the hidden tokens, a scalar."""

    prediction: Tensor
    """(B, L, V), of all tokens"""

    target: Tensor
    """(B, L, V)"""

    mask: Tensor
    """(B, L) bool, True where hidden"""


class Mae(nn.Module):
    """What both masked autoencoders share: blocks, decoder, flow and loss.

    Args:
        size: Widths and depths.
        tokens: Tokens L.
        values: Values V that are predicted for a token.
        mask_ratio: Share of tokens hidden.
        compat: Compute as published.
        recompute: Keep only each block's input, and run it again in the backward pass (activation
            checkpointing): less memory, a third more time.
    """

    def __init__(
        self,
        size: Size,
        *,
        tokens: int,
        values: int,
        mask_ratio: float,
        compat: bool,
        recompute: bool,
    ) -> None:
        super().__init__()
        self.size, self.compat, self.recompute = size, compat, recompute
        self.keep = masking.keep_count(tokens, mask_ratio)
        width = size.decoder_dim
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, size.dim), requires_grad=False)
        self.blocks = encoder_blocks(size, ssa=False)
        self.norm = nn.LayerNorm(size.dim, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(size.dim, width)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, tokens, width), requires_grad=False)
        self.decoder_blocks = block_stack(
            width,
            size.decoder_heads,
            drop_paths=size.drop_paths()[: size.decoder_depth],
            sampled=[False] * size.decoder_depth,
        )
        self.decoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(width, values)
        init_linear(self.decoder_embed)
        init_linear(self.decoder_pred)
        if compat:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(
        self,
        x_BCHW: Tensor,
        wavelength_BC: Tensor | None = None,
        *,
        valid_BHW: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> MaeOutput:
        """Hide tokens at random and predict them.

        Args:
            x_BCHW: Images, standardised; anything (also NaN) where not valid.
            wavelength_BC: Centre of each band [nm]; the default spectral one needs it.
            valid_BHW: False pixels are shown as 0 and do not count in the loss.
            noise: (B, L) ranks the tokens, the smallest stay visible; drawn if not given.
            generator: Source of the noise.

        Raises:
            ValueError: Images of another size or number of bands; wavelengths missing.
        """
        target_BLV = self.target(x_BCHW, valid_BHW)
        batch, length = target_BLV.shape[:2]
        if noise is None:
            noise = masking.draw_noise(batch, length, like=target_BLV, generator=generator)
        keep_BK, mask_BL = masking.random_mask(noise, self.keep)
        tokens_BKD = self.embed(masking.take(target_BLV, keep_BK))
        if not self.compat:
            places_BLD = self.positions(wavelength_BC).expand(batch, -1, -1)
            tokens_BKD = tokens_BKD + masking.take(places_BLD, keep_BK)
        for block in self.blocks:
            tokens_BKD = run_block(block, tokens_BKD, recompute=self.recompute)
        prediction = self.decode(self.norm(tokens_BKD), keep_BK, wavelength_BC)
        loss = self.loss(prediction, target_BLV, mask_BL, valid_BHW)
        return MaeOutput(loss, prediction, target_BLV, mask_BL)

    def decode(self, latent_BKD: Tensor, keep_BK: Tensor, wavelength_BC: Tensor | None) -> Tensor:
        """Return the prediction (B, L, V) of all tokens from the visible ones."""
        length = self.pos_embed.shape[1]
        visible = self.decoder_embed(latent_BKD)
        tokens_BLD = masking.put_back(visible, keep_BK, self.mask_token, length)
        tokens_BLD = tokens_BLD + self.decoder_positions(wavelength_BC)
        for block in self.decoder_blocks:
            tokens_BLD = run_block(block, tokens_BLD, recompute=self.recompute)
        return self.decoder_pred(self.decoder_norm(tokens_BLD))

    def loss(
        self, prediction: Tensor, target: Tensor, mask_BL: Tensor, valid_BHW: Tensor | None = None
    ) -> Tensor:
        """Return the mean squared error over the valid pixels of the hidden tokens, 0 if none."""
        error_BLV = (prediction.float() - target.float()) ** 2
        if valid_BHW is None:
            return (error_BLV.mean(-1) * mask_BL).sum() / mask_BL.sum()
        weight_BLP = self.pixels(valid_BHW) * mask_BL[..., None]
        error_BLP = error_BLV.unflatten(-1, (weight_BLP.shape[-1], -1)).mean(-1)
        return (error_BLP * weight_BLP).sum() / weight_BLP.sum().clamp(min=1)

    def baseline_loss(
        self,
        x_BCHW: Tensor,
        mask_BL: Tensor,
        spectrum_BC: Tensor,
        valid_BHW: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of predicting one spectrum everywhere, on the same hidden tokens."""
        target_BLV = self.target(x_BCHW, valid_BHW)
        flat_BLV = self.patchify(spectrum_BC[..., None, None].expand_as(x_BCHW))
        return self.loss(flat_BLV, target_BLV, mask_BL, valid_BHW)

    def target(self, x_BCHW: Tensor, valid_BHW: Tensor | None = None) -> Tensor:
        """Return what is to be predicted, (B, L, V): the pixels, 0 where not valid."""
        if valid_BHW is not None:
            x_BCHW = x_BCHW.masked_fill(~valid_BHW[:, None], 0)
        return self.patchify(x_BCHW)

    def patchify(self, x_BCHW: Tensor) -> Tensor:
        """Return the values of each token, (B, L, V)."""
        raise NotImplementedError

    def pixels(self, valid_BHW: Tensor) -> Tensor:
        """Return the validity of each pixel of each token as 0 or 1, (B, L, P)."""
        raise NotImplementedError

    def embed(self, patches_BKV: Tensor) -> Tensor:
        """Return the tokens (B, K, D) of values that `patchify` returned."""
        raise NotImplementedError

    def positions(self, wavelength_BC: Tensor | None) -> Tensor:
        """Return the encoder's positions, (B, L, D) or (1, L, D)."""
        raise NotImplementedError

    def decoder_positions(self, wavelength_BC: Tensor | None) -> Tensor:
        """Return the decoder's positions, (B, L, D) or (1, L, D)."""
        raise NotImplementedError


class SpatialMae(Mae):
    """Masked autoencoder of patches; a token has p * p * C values, ordered (row, column, band).

    Takes images of C = `bands` and `image_size` pixels a side, in patches of p = `patch_size`.
    """

    def __init__(
        self,
        size: Size,
        *,
        bands: int,
        image_size: int,
        patch_size: int,
        mask_ratio: float,
        compat: bool,
        recompute: bool = False,
    ) -> None:
        side = image_size // patch_size
        super().__init__(
            size, tokens=side**2, values=patch_size**2 * bands, mask_ratio=mask_ratio,
            compat=compat, recompute=recompute,
        )  # fmt: skip
        self.image_shape = (bands, side * patch_size, side * patch_size)
        self.patch_size = patch_size
        self.patch_embed = PatchEmbed(bands, size.dim, patch_size)
        with torch.no_grad():
            self.decoder_pos_embed.copy_(sincos_2d(size.decoder_dim, (side, side)))
            if not compat:
                self.pos_embed.copy_(sincos_2d(size.dim, (side, side)))
        self.pos_embed.requires_grad_(not compat)

    def patchify(self, x_BCHW: Tensor) -> Tensor:
        _check_shape(x_BCHW, self.image_shape)
        return patchify(x_BCHW, self.patch_size)

    def pixels(self, valid_BHW: Tensor) -> Tensor:
        return patchify(valid_BHW[:, None], self.patch_size).float()

    def embed(self, patches_BKV: Tensor) -> Tensor:
        return self.patch_embed.embed(patches_BKV)

    def positions(self, wavelength_BC: Tensor | None) -> Tensor:
        return self.pos_embed + window_positions(wavelength_BC, self.pos_embed)

    def decoder_positions(self, wavelength_BC: Tensor | None) -> Tensor:
        if self.compat:
            return self.decoder_pos_embed
        return self.decoder_pos_embed + window_positions(wavelength_BC, self.decoder_pos_embed)


class SpectralMae(Mae):
    """Masked autoencoder of bands; a token is one band of H * W values.

    Takes images of C = `bands` and `image_size` pixels a side; as many tokens as bands.
    """

    def __init__(
        self,
        size: Size,
        *,
        bands: int,
        image_size: int,
        mask_ratio: float,
        compat: bool,
        recompute: bool = False,
    ) -> None:
        super().__init__(
            size, tokens=bands, values=image_size**2, mask_ratio=mask_ratio, compat=compat,
            recompute=recompute,
        )  # fmt: skip
        self.image_shape = (bands, image_size, image_size)
        self.spat_map = nn.Linear(image_size**2, size.dim)
        init_linear(self.spat_map)

    def patchify(self, x_BCHW: Tensor) -> Tensor:
        _check_shape(x_BCHW, self.image_shape)
        return x_BCHW.flatten(2)

    def pixels(self, valid_BHW: Tensor) -> Tensor:
        return valid_BHW.flatten(1)[:, None].expand(-1, self.image_shape[0], -1).float()

    def embed(self, patches_BKV: Tensor) -> Tensor:
        return self.spat_map(patches_BKV)

    def positions(self, wavelength_BC: Tensor | None) -> Tensor:
        return sincos_wavelength(_required(wavelength_BC), self.size.dim)

    def decoder_positions(self, wavelength_BC: Tensor | None) -> Tensor:
        if self.compat:
            return self.decoder_pos_embed
        return sincos_wavelength(_required(wavelength_BC), self.size.decoder_dim)


def spatial_mae(
    size: SizeName,
    *,
    bands: int = 100,
    image_size: int = 64,
    patch_size: int = 8,
    mask_ratio: float = 0.75,
    compat: bool = False,
    recompute: bool = False,
) -> SpatialMae:
    """Return a spatial masked autoencoder of a named size."""
    return SpatialMae(
        SIZES[size], bands=bands, image_size=image_size, patch_size=patch_size,
        mask_ratio=mask_ratio, compat=compat, recompute=recompute,
    )  # fmt: skip


def spectral_mae(
    size: SizeName,
    *,
    bands: int = 100,
    image_size: int = 64,
    mask_ratio: float = 0.75,
    compat: bool = False,
    recompute: bool = False,
) -> SpectralMae:
    """Return a spectral masked autoencoder of a named size."""
    return SpectralMae(
        SIZES[size], bands=bands, image_size=image_size, mask_ratio=mask_ratio, compat=compat,
        recompute=recompute,
    )  # fmt: skip


def _check_shape(x_BCHW: Tensor, shape: tuple[int, int, int]) -> None:
    if x_BCHW.shape[1:] != shape:
        raise ValueError(f"expected images (band, y, x) of {shape}, got {tuple(x_BCHW.shape[1:])}")


def _required(wavelength_BC: Tensor | None) -> Tensor:
    if wavelength_BC is None:
        raise ValueError("the spectral model needs wavelength_BC [nm]: it is a band's position")
    return wavelength_BC
