"""What both masked autoencoders share: blocks, decoder, flow and loss.

Shape letters: B batch, C bands, H W pixels, L tokens, K visible tokens, M tokens that are
predicted, V values a token, P pixels a token (V = P * bands a token), D width, d coordinates.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hypersigma import masking
from hypersigma.backbones.sizes import Size, encoder_blocks
from hypersigma.layers.block import NORM_EPS, Block, block_stack, init_linear, run_block
from hypersigma.reconstruction import interpolation, squared_error, token_statistics


class MaeOutput(NamedTuple):
    """What a masked autoencoder returns: a tuple, since engines look for tensors in it."""

    loss: Tensor
    """Mean squared error over the valid pixels of the hidden tokens, a scalar."""

    prediction: Tensor
    """(B, M, V), of all tokens or of the hidden ones"""

    target: Tensor
    """(B, M, V); with `norm_pix` less each token's mean, by its standard deviation"""

    mask: Tensor
    """(B, L) bool, True where hidden"""

    places: Tensor | None
    """(B, M), which tokens are predicted; None: all"""

    weight: Tensor
    """Weight of each pixel in the loss (B, M, P); P is 1 if all pixels are valid"""

    mean: Tensor | None
    """With `norm_pix`, what was taken off the targets (B, M, 1)"""

    spread: Tensor | None
    """With `norm_pix`, what they were then divided by (B, M, 1)"""

    def scaled(self, values_BMV: Tensor) -> Tensor:
        """Return values as the targets are scaled."""
        if self.mean is None or self.spread is None:
            return values_BMV
        return (values_BMV - self.mean) / self.spread

    def unscaled(self, values_BMV: Tensor) -> Tensor:
        """Return values in units of the inputs."""
        if self.mean is None or self.spread is None:
            return values_BMV
        return values_BMV * self.spread + self.mean


@dataclass(frozen=True)
class MaeConfig:
    """What both kinds have in common beside their size."""

    mask_ratio: float = 0.75
    """Share of tokens hidden."""
    block: int = 1
    """Tokens along the side of what is hidden together, see `masking.draw_noise`."""
    norm_pix: bool = False
    """Predict each token less its mean, by its standard deviation."""
    anchor: bool = False
    """Bands only: predict the difference from what the visible bands beside say."""
    compat: bool = False
    """Compute as published."""
    recompute: bool = False
    """Keep only each block's input, and run it again in the backward pass (activation
    checkpointing): less memory, a third more time."""


class Mae(nn.Module):
    """What both masked autoencoders share: blocks, decoder, flow and loss.

    Args:
        size: Widths and depths.
        grid: (h, w) of the tokens L = h * w; (L, 1) if they are bands.
        values: Values V that are predicted for a token.
        config: What is hidden and what is predicted.
    """

    def __init__(
        self, size: Size, *, grid: tuple[int, int], values: int, config: MaeConfig
    ) -> None:
        super().__init__()
        tokens, width = grid[0] * grid[1], size.decoder_dim
        self.size, self.grid, self.config, self.compat = size, grid, config, config.compat
        self.keep = masking.keep_count(tokens, config.mask_ratio)
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
        if config.anchor:
            nn.init.zeros_(self.decoder_pred.weight)  # to begin at the anchor
        if self.compat:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(
        self,
        x_BCHW: Tensor,
        wavelength_BC: Tensor | None = None,
        *,
        valid_BHW: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        hidden_only: bool = False,
    ) -> MaeOutput:
        """Hide tokens at random and predict them.

        Args:
            x_BCHW: Images, standardised; anything (also NaN) where not valid.
            wavelength_BC: Centre of each band [nm]; the default spectral one needs it.
            valid_BHW: False pixels are shown as 0 and do not count in the loss.
            noise: (B, L) ranks the tokens, the smallest stay visible; drawn if not given.
            generator: Source of the noise.
            hidden_only: Predict the hidden tokens alone, which is all that the loss needs.

        Raises:
            ValueError: Images of another size or number of bands; wavelengths missing.
        """
        values_BLV = self.target(x_BCHW, valid_BHW)
        if noise is None:
            noise = masking.draw_noise(
                len(values_BLV), self.grid, block=self.config.block, like=values_BLV,
                generator=generator,
            )  # fmt: skip
        keep_BK, hidden_BM, mask_BL = masking.random_mask(noise, self.keep)
        latent_BKD = self.encode(masking.take(values_BLV, keep_BK), keep_BK, wavelength_BC)
        places = hidden_BM if hidden_only else None
        prediction_BMV = self.decode(latent_BKD, keep_BK, wavelength_BC, places)
        target_BMV, valid_BMP = _taken(values_BLV, places), self._valid(valid_BHW, mask_BL, places)
        if self.config.anchor:
            weight_BLL = interpolation(mask_BL, self.places(wavelength_BC, mask_BL)[..., 0])
            weight_BML = _taken(weight_BLL, places)
            # In float32 whatever the blocks compute in: what is left to learn may be a hundredth.
            with torch.autocast(values_BLV.device.type, enabled=False):
                guess_BMV = self._anchor(weight_BML @ values_BLV.float(), valid_BMP)
            prediction_BMV = prediction_BMV.float() + guess_BMV
        mean, spread = None, None
        if self.config.norm_pix:
            mean, spread = token_statistics(target_BMV, valid_BMP)
            target_BMV = (target_BMV - mean) / spread
        weight_BMP = valid_BMP * _taken(mask_BL[..., None], places)
        loss = squared_error(prediction_BMV, target_BMV, weight_BMP)
        return MaeOutput(
            loss, prediction_BMV, target_BMV, mask_BL, places, weight_BMP, mean, spread
        )

    def features(self, x_BCHW: Tensor, wavelength_BC: Tensor, valid_BHW: Tensor) -> Tensor:
        """Return what the encoder sees in whole images: the mean of its tokens (B, D)."""
        values_BLV = self.target(x_BCHW, valid_BHW)
        all_BL = torch.arange(values_BLV.shape[1], device=x_BCHW.device).expand(len(x_BCHW), -1)
        return self.encode(values_BLV, all_BL, wavelength_BC).mean(1)

    def encode(self, visible_BKV: Tensor, keep_BK: Tensor, wavelength_BC: Tensor | None) -> Tensor:
        """Return the visible tokens' latents (B, K, D) from their values and places."""
        tokens_BKD = self.embed(visible_BKV)
        if not self.compat:
            places_BLD = self.positions(wavelength_BC).expand(len(keep_BK), -1, -1)
            tokens_BKD = tokens_BKD + masking.take(places_BLD, keep_BK)
        for block in self.blocks:
            tokens_BKD = run_block(block, tokens_BKD, recompute=self.config.recompute)
        return self.norm(tokens_BKD)

    def decode(
        self,
        latent_BKD: Tensor,
        keep_BK: Tensor,
        wavelength_BC: Tensor | None,
        places_BM: Tensor | None = None,
    ) -> Tensor:
        """Return the prediction (B, M, V) of tokens, all if no places are given."""
        length = self.pos_embed.shape[1]
        visible = self.decoder_embed(latent_BKD)
        tokens_BLD = masking.put_back(visible, keep_BK, self.mask_token, length)
        tokens_BLD = tokens_BLD + self.decoder_positions(wavelength_BC)
        *blocks, last = self.decoder_blocks
        recompute = self.config.recompute
        for block in blocks:
            tokens_BLD = run_block(block, tokens_BLD, recompute=recompute)
        if places_BM is None:
            tokens_BLD = run_block(last, tokens_BLD, recompute=recompute)
        else:
            assert isinstance(last, Block)  # noqa: S101 - which a ModuleList forgets
            tokens_BLD = run_block(last.forward_only, tokens_BLD, places_BM, recompute=recompute)
        return self.decoder_pred(self.decoder_norm(tokens_BLD))

    def loss_of(self, images_BCHW: Tensor, out: MaeOutput) -> Tensor:
        """Return the loss that these images would have had as the prediction of `out`."""
        values_BMV = _taken(self.patchify(images_BCHW), out.places)
        return squared_error(out.scaled(values_BMV), out.target, out.weight)

    def target(self, x_BCHW: Tensor, valid_BHW: Tensor | None = None) -> Tensor:
        """Return the values of each token, (B, L, V): the pixels, 0 where not valid."""
        if valid_BHW is not None:
            x_BCHW = x_BCHW.masked_fill(~valid_BHW[:, None], 0)
        return self.patchify(x_BCHW)

    def _anchor(self, values_BMV: Tensor, valid_BMP: Tensor) -> Tensor:
        if not self.config.norm_pix:
            return values_BMV
        # By its own statistics: those of the target are hidden.
        mean, spread = token_statistics(values_BMV, valid_BMP)
        return (values_BMV - mean) / spread

    def _valid(self, valid_BHW: Tensor | None, mask_BL: Tensor, places_BM: Tensor | None) -> Tensor:
        if valid_BHW is None:
            valid_BLP = torch.ones_like(mask_BL[..., None], dtype=torch.float32)
        else:
            valid_BLP = self.pixels(valid_BHW)
        return _taken(valid_BLP, places_BM)

    def patchify(self, x_BCHW: Tensor) -> Tensor:
        """Return the values of each token, (B, L, V)."""
        raise NotImplementedError

    def unpatchify(self, values_BLV: Tensor) -> Tensor:
        """Return the images (B, C, H, W) that have these values."""
        raise NotImplementedError

    def pixels(self, valid_BHW: Tensor) -> Tensor:
        """Return the validity of each pixel of each token as 0 or 1, (B, L, P)."""
        raise NotImplementedError

    def embed(self, patches_BKV: Tensor) -> Tensor:
        """Return the tokens (B, K, D) of values that `patchify` returned."""
        raise NotImplementedError

    def places(self, wavelength_BC: Tensor | None, mask_BL: Tensor) -> Tensor:
        """Return where each token is, (B, L, d): row and column, or wavelength [nm]."""
        raise NotImplementedError

    def positions(self, wavelength_BC: Tensor | None) -> Tensor:
        """Return the encoder's positions, (B, L, D) or (1, L, D)."""
        raise NotImplementedError

    def decoder_positions(self, wavelength_BC: Tensor | None) -> Tensor:
        """Return the decoder's positions, (B, L, D) or (1, L, D)."""
        raise NotImplementedError


def _taken(values_BLV: Tensor, places_BM: Tensor | None) -> Tensor:
    return values_BLV if places_BM is None else masking.take(values_BLV, places_BM)


def check_shape(x_BCHW: Tensor, shape: tuple[int, int, int]) -> None:
    """Refuse images of another shape (band, y, x)."""
    if x_BCHW.shape[1:] != shape:
        raise ValueError(f"expected images (band, y, x) of {shape}, got {tuple(x_BCHW.shape[1:])}")
