"""The spectral encoder: tokens are bands.

Shape letters: B batch, C bands, H W pixels, T tokens, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES, Size, SizeName, encoder_blocks
from hypersigma.features import Features
from hypersigma.layers.block import NORM_EPS, init_linear
from hypersigma.layers.positions import sincos_wavelength


class SpectralViT(nn.Module):
    """Vision transformer over the bands of an image, (B, C, H, W) -> `Features`.

    The C bands are averaged to T tokens (shares overlap, or repeat, where T does not divide C).

    Args:
        size: Widths and depths.
        num_tokens: Tokens T.
        img_size: Pixels along the image side, which is fixed.
        ssa: Use sampling attention, except in every `size.interval`-th block.
        compat: Compute as published: the position of a token is the learnt `pos_embed` of its
            number and not its wavelength, sampling attention sees the tokens as a square raster
            and not as a line, and the final norm is not applied.

    Raises:
        ValueError: `compat` with sampling attention and a number of tokens that is no square.
    """

    def __init__(
        self,
        size: Size,
        *,
        num_tokens: int,
        img_size: int,
        ssa: bool = False,
        compat: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.img_size, self.compat = size, img_size, compat
        side = math.isqrt(num_tokens)
        if compat and ssa and side**2 != num_tokens:
            raise ValueError(f"num_tokens must be a square number with ssa, got {num_tokens}")
        self.num_tokens = num_tokens
        self.grid = (side, side) if compat and side**2 == num_tokens else (num_tokens, 1)
        self.spat_map = nn.Linear(img_size**2, size.dim)
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
            x_BCHW: Image of `img_size` pixels a side.
            wavelength_BC: Centre of each band [nm]; not used with `compat`.

        Raises:
            ValueError: The image has another size, or the wavelengths are missing.
        """
        if x_BCHW.shape[2:] != (self.img_size, self.img_size):
            raise ValueError(
                f"expected images of {self.img_size} x {self.img_size} px (the spectral encoder's "
                f"size is fixed), got {x_BCHW.shape[2]} x {x_BCHW.shape[3]}"
            )
        bands_BTV = F.adaptive_avg_pool1d(x_BCHW.flatten(2).transpose(1, 2), self.num_tokens)
        x_BTD = self.spat_map(bands_BTV.transpose(1, 2)) + self.positions(wavelength_BC)
        out = []
        for i, block in enumerate(self.blocks[: self.size.depth]):
            x_BTD = block(x_BTD, self.grid)
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
    ssa: bool = False,
    compat: bool = False,
) -> SpectralViT:
    """Return a spectral encoder of a named size; the arguments are those of `SpectralViT`."""
    return SpectralViT(
        SIZES[size], num_tokens=num_tokens, img_size=img_size, ssa=ssa, compat=compat
    )
