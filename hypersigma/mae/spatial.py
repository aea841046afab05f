"""The spatial masked autoencoder, whose tokens are patches of pixels.

Shape letters: B batch, C bands, H W pixels, L tokens = h * w, K visible tokens, V values a token,
P pixels a token, D width, p patch side.
"""

import torch
from torch import Tensor

from hypersigma.backbones.sizes import SIZES, Size, SizeName
from hypersigma.layers.patch_embed import PatchEmbed, patchify, unpatchify
from hypersigma.layers.positions import sincos_2d, window_positions
from hypersigma.mae.model import Mae, MaeConfig, check_shape


class SpatialMae(Mae):
    """Masked autoencoder of patches; a token has p * p * C values, ordered (row, column, band).

    Takes images of C = `bands` and `image_size` pixels a side, in patches of p = `patch_size`.
    """

    def __init__(
        self, size: Size, *, bands: int, image_size: int, patch_size: int, config: MaeConfig
    ) -> None:
        side = image_size // patch_size
        super().__init__(size, grid=(side, side), values=patch_size**2 * bands, config=config)
        self.image_shape = (bands, side * patch_size, side * patch_size)
        self.patch_size = patch_size
        self.patch_embed = PatchEmbed(bands, size.dim, patch_size)
        with torch.no_grad():
            self.decoder_pos_embed.copy_(sincos_2d(size.decoder_dim, (side, side)))
            if not self.compat:
                self.pos_embed.copy_(sincos_2d(size.dim, (side, side)))
        self.pos_embed.requires_grad_(not self.compat)

    def patchify(self, x_BCHW: Tensor) -> Tensor:
        check_shape(x_BCHW, self.image_shape)
        return patchify(x_BCHW, self.patch_size)

    def unpatchify(self, values_BLV: Tensor) -> Tensor:
        return unpatchify(values_BLV, self.patch_size, self.grid)

    def pixels(self, valid_BHW: Tensor) -> Tensor:
        return patchify(valid_BHW[:, None], self.patch_size).float()

    def embed(self, patches_BKV: Tensor) -> Tensor:
        return self.patch_embed.embed(patches_BKV)

    def places(self, wavelength_BC: Tensor | None, mask_BL: Tensor) -> Tensor:
        number_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
        row_column = (number_L // self.grid[1], number_L % self.grid[1])
        return torch.stack(row_column, -1).float().expand(len(mask_BL), -1, -1)

    def positions(self, wavelength_BC: Tensor | None) -> Tensor:
        return self.pos_embed + window_positions(wavelength_BC, self.pos_embed)

    def decoder_positions(self, wavelength_BC: Tensor | None) -> Tensor:
        if self.compat:
            return self.decoder_pos_embed
        return self.decoder_pos_embed + window_positions(wavelength_BC, self.decoder_pos_embed)


def spatial_mae(
    size: SizeName,
    *,
    bands: int = 100,
    image_size: int = 64,
    patch_size: int = 8,
    mask_ratio: float = 0.75,
    block: int = 1,
    norm_pix: bool = False,
    compat: bool = False,
    recompute: bool = False,
) -> SpatialMae:
    """Return a spatial masked autoencoder of a named size; see `MaeConfig`."""
    config = MaeConfig(mask_ratio, block, norm_pix, compat=compat, recompute=recompute)
    return SpatialMae(
        SIZES[size], bands=bands, image_size=image_size, patch_size=patch_size, config=config
    )
