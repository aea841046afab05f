"""The spectral encoder: tokens are bands.

Shape letters: B batch, C bands, H W pixels, P = H * W, T tokens, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES, Sampled, Size, SizeName, encoder_blocks
from hypersigma.features import Features
from hypersigma.layers.block import NORM_EPS, init_linear, run_block
from hypersigma.layers.patch_embed import PictureMap
from hypersigma.layers.positions import sincos_wavelength


class SpectralViT(nn.Module):
    """Vision transformer over the bands of an image, (B, C, H, W) -> `Features`.

    The C bands are averaged to T tokens (shares overlap, or repeat, where T does not divide C).

    Args:
        size: Widths and depths.
        num_tokens: Tokens T.
        img_size: Pixels along the side of the images that `spat_map` is made for. Images of
            another size resample it in each forward pass, at the cost of some 10 % of a pass over
            one image; for many, make the encoder for that size and load it with `load_encoder`.
        ssa: Which blocks have sampling attention.
        compat: Compute as published: the position of a token is the learnt `pos_embed` of its
            number and not its wavelength, sampling attention sees the tokens as a square raster
            and not as a line, and the final norm is not applied.
        recompute: Keep only each block's input while training, and run it again in the backward
            pass (activation checkpointing): less memory, a third more time.

    Raises:
        ValueError: `compat` with sampling attention and a number of tokens that is no square.
    """

    def __init__(
        self,
        size: Size,
        *,
        num_tokens: int,
        img_size: int,
        ssa: Sampled = False,
        compat: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.img_size, self.compat = size, img_size, compat
        self.recompute = recompute
        side = math.isqrt(num_tokens)
        if compat and ssa and side**2 != num_tokens:
            raise ValueError(f"num_tokens must be a square number with ssa, got {num_tokens}")
        self.num_tokens = num_tokens
        self.grid = (side, side) if compat and side**2 == num_tokens else (num_tokens, 1)
        self.spat_map = PictureMap(img_size**2, size.dim)
        init_linear(self.spat_map)
        # Without `compat` it only keeps the published name, so nothing may train or decay it.
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, size.dim), requires_grad=compat)
        self.blocks = encoder_blocks(size, ssa=ssa)
        self.norm = nn.LayerNorm(size.dim, eps=NORM_EPS)
        if compat:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x_BCHW: Tensor, wavelength_BC: Tensor | None = None) -> Features:
        """Return the last block's tokens; see `pyramid`."""
        return self.pyramid(x_BCHW, wavelength_BC)[-1]

    def pyramid(self, x_BCHW: Tensor, wavelength_BC: Tensor | None = None) -> tuple[Features, ...]:
        """Return the tokens of each of `size.levels`, by ascending depth.

        Args:
            x_BCHW: Images of any size.
            wavelength_BC: Centre of each band [nm]; not used with `compat`.

        Raises:
            ValueError: The wavelengths are missing.
        """
        bands_BPT = F.adaptive_avg_pool1d(x_BCHW.flatten(2).transpose(1, 2), self.num_tokens)
        x_BTD = self.spat_map(bands_BPT.transpose(1, 2), (x_BCHW.shape[2], x_BCHW.shape[3]))
        x_BTD = x_BTD + self.positions(wavelength_BC)
        out = []
        for i, block in enumerate(self.blocks[: self.size.depth]):
            x_BTD = run_block(block, x_BTD, self.grid, recompute=self.recompute)
            if i in self.size.levels:
                out.append(Features(x_BTD if self.compat else self.norm(x_BTD), self.grid))
        return tuple(out)

    def positions(self, wavelength_BC: Tensor | None) -> Tensor:
        """Return the position of each token, (B, T, D) or (1, T, D)."""
        if self.compat:
            return self.pos_embed
        if wavelength_BC is None:
            raise ValueError("the spectral encoder needs wavelength_BC [nm]: it is the position")
        pooled_BT = F.adaptive_avg_pool1d(wavelength_BC, self.num_tokens)
        return sincos_wavelength(pooled_BT, self.size.dim)


def spectral(
    size: SizeName,
    *,
    num_tokens: int = 100,
    img_size: int = 64,
    ssa: Sampled = False,
    compat: bool = False,
    recompute: bool = False,
) -> SpectralViT:
    """Return a spectral encoder of a named size; the arguments are those of `SpectralViT`."""
    return SpectralViT(
        SIZES[size], num_tokens=num_tokens, img_size=img_size, ssa=ssa, compat=compat,
        recompute=recompute,
    )  # fmt: skip
