"""The spectral masked autoencoder, whose tokens are bands.

Shape letters: B batch, C bands, H W pixels, L tokens (one a band), K visible tokens, V values a
token, P pixels a token, D width.
"""

import torch
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES, Size, SizeName
from hypersigma.layers.block import init_linear
from hypersigma.layers.positions import sincos_wavelength
from hypersigma.mae.model import Mae, MaeConfig, check_shape


class SpectralMae(Mae):
    """Masked autoencoder of bands; a token is one band of H * W values.

    Takes images of C = `bands` and `image_size` pixels a side; as many tokens as bands.
    """

    def __init__(self, size: Size, *, bands: int, image_size: int, config: MaeConfig) -> None:
        super().__init__(size, grid=(bands, 1), values=image_size**2, config=config)
        self.image_shape = (bands, image_size, image_size)
        self.spat_map = nn.Linear(image_size**2, size.dim)
        init_linear(self.spat_map)

    def patchify(self, x_BCHW: Tensor) -> Tensor:
        check_shape(x_BCHW, self.image_shape)
        return x_BCHW.flatten(2)

    def unpatchify(self, values_BLV: Tensor) -> Tensor:
        return values_BLV.unflatten(2, self.image_shape[1:])

    def pixels(self, valid_BHW: Tensor) -> Tensor:
        return valid_BHW.flatten(1)[:, None].expand(-1, self.image_shape[0], -1).float()

    def embed(self, patches_BKV: Tensor) -> Tensor:
        return self.spat_map(patches_BKV)

    def places(self, wavelength_BC: Tensor | None, mask_BL: Tensor) -> Tensor:
        if wavelength_BC is None and self.compat:
            number_L1 = torch.arange(mask_BL.shape[1], device=mask_BL.device)[:, None]
            return number_L1.float().expand(len(mask_BL), -1, -1)
        return _required(wavelength_BC)[..., None].float()

    def positions(self, wavelength_BC: Tensor | None) -> Tensor:
        return sincos_wavelength(_required(wavelength_BC), self.size.dim)

    def decoder_positions(self, wavelength_BC: Tensor | None) -> Tensor:
        if self.compat:
            return self.decoder_pos_embed
        return sincos_wavelength(_required(wavelength_BC), self.size.decoder_dim)


def spectral_mae(
    size: SizeName,
    *,
    bands: int = 100,
    image_size: int = 64,
    mask_ratio: float = 0.75,
    block: int = 1,
    norm_pix: bool = False,
    anchor: bool = False,
    compat: bool = False,
    recompute: bool = False,
) -> SpectralMae:
    """Return a spectral masked autoencoder of a named size; see `MaeConfig`."""
    config = MaeConfig(mask_ratio, block, norm_pix, anchor, compat, recompute)
    return SpectralMae(SIZES[size], bands=bands, image_size=image_size, config=config)


def _required(wavelength_BC: Tensor | None) -> Tensor:
    if wavelength_BC is None:
        raise ValueError("the spectral model needs wavelength_BC [nm]: it is a band's position")
    return wavelength_BC
