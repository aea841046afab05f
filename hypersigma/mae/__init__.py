"""Masked autoencoders: hide most tokens, predict their pixels from the rest.

Two independent ones, whose tokens are patches of pixels (spatial) or bands (spectral). The names
and shapes of their state dict are the published ones, in both modes:

- default: the encoder knows where a token is, and the spectral one, as its decoder, knows the
  wavelength of every band;
- `compat`: as published, the encoder knows no positions, nor does the spectral decoder, which
  predicts the same image for every hidden band.

With `anchor` the spectral one predicts how a hidden band differs from the straight line between the
visible bands beside it.

What is not learnt is frozen: `decoder_pos_embed`, and `pos_embed` in `compat` and if spectral.

Source: He et al. 2022, arXiv:2111.06377; Wang et al. 2025, doi:10.1109/TPAMI.2025.3557581.
"""

from hypersigma.mae.model import Mae, MaeConfig, MaeOutput
from hypersigma.mae.spatial import SpatialMae, spatial_mae
from hypersigma.mae.spectral import SpectralMae, spectral_mae

__all__ = [
    "Mae", "MaeConfig", "MaeOutput", "SpatialMae", "SpectralMae", "spatial_mae", "spectral_mae",
]  # fmt: skip
