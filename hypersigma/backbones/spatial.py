"""The spatial encoder: tokens are patches of pixels.

Shape letters: B batch, C bands, H W pixels, L tokens = h * w, D width.
"""

from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES, Sampled, Size, SizeName, encoder_blocks
from hypersigma.features import Features
from hypersigma.layers.block import NORM_EPS, run_block
from hypersigma.layers.patch_embed import PatchEmbed
from hypersigma.layers.positions import resample_positions, sincos_2d, window_positions


class SpatialViT(nn.Module):
    """Vision transformer over the patches of an image, (B, C, H, W) -> `Features`.

    Args:
        size: Widths and depths.
        in_chans: Bands C.
        img_size: Pixels along the side of the images that `pos_embed` is made for; another size
            resamples it.
        patch_size: Pixels along a patch side.
        ssa: Which blocks have sampling attention.
        num_points: Places that sampling attention looks at.
        compat: Compute as published: what is left of the last whole patch is cropped, and the
            final norm is not applied.
        recompute: Keep only each block's input while training, and run it again in the backward
            pass (activation checkpointing): less memory, a third more time.
    """

    def __init__(
        self,
        size: Size,
        *,
        in_chans: int,
        img_size: int,
        patch_size: int,
        ssa: Sampled = False,
        num_points: int = 8,
        compat: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.patch_size, self.compat = size, patch_size, compat
        self.recompute = recompute
        self.grid = (img_size // patch_size, img_size // patch_size)
        self.patch_embed = PatchEmbed(in_chans, size.dim, patch_size)
        self.pos_embed = nn.Parameter(sincos_2d(size.dim, self.grid))
        self.blocks = encoder_blocks(size, ssa=ssa, num_points=num_points)
        self.norm = nn.LayerNorm(size.dim, eps=NORM_EPS)

    def forward(self, x_BCHW: Tensor, wavelength_BC: Tensor | None = None) -> Features:
        """Return the last block's tokens."""
        return self.pyramid(x_BCHW, wavelength_BC)[-1]

    def pyramid(self, x_BCHW: Tensor, wavelength_BC: Tensor | None = None) -> tuple[Features, ...]:
        """Return the tokens of each of `size.levels`, by ascending depth.

        Unless `compat`, the wavelengths [nm] tell one window of bands from another.

        Raises:
            ValueError: The image is not made of whole patches.
        """
        height, width = x_BCHW.shape[2:]
        if not self.compat and (height % self.patch_size or width % self.patch_size):
            raise ValueError(
                f"expected an image of whole {self.patch_size} px patches, got {height} x {width}; "
                "pad or cut it"
            )
        x_BLD, grid = self.patch_embed(x_BCHW)
        x_BLD = x_BLD + self.positions(grid)
        if not self.compat:
            x_BLD = x_BLD + window_positions(wavelength_BC, self.pos_embed)
        out = []
        for i, block in enumerate(self.blocks):
            x_BLD = run_block(block, x_BLD, grid, recompute=self.recompute)
            if i in self.size.levels:
                out.append(Features(x_BLD if self.compat else self.norm(x_BLD), grid))
        return tuple(out)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Return the position table of a token grid, (1, L, D)."""
        if grid == self.grid:
            return self.pos_embed
        return resample_positions(self.pos_embed, self.grid, grid)


def spatial(
    size: SizeName,
    *,
    in_chans: int = 100,
    img_size: int = 64,
    patch_size: int = 8,
    ssa: Sampled = False,
    compat: bool = False,
    recompute: bool = False,
) -> SpatialViT:
    """Return a spatial encoder of a named size; the arguments are those of `SpatialViT`."""
    return SpatialViT(
        SIZES[size], in_chans=in_chans, img_size=img_size, patch_size=patch_size, ssa=ssa,
        compat=compat, recompute=recompute,
    )  # fmt: skip
