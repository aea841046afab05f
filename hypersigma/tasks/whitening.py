"""Spectra in which the background has no structure, and noise little weight.

Shape letters: B batch, C bands, H W pixels, N pixels in a row.
"""

import torch
from torch import Tensor, nn

EPS = 1e-12
RIDGE = 1e-6
"""Of the mean variance, added to each band's, as `hypersigma.classical.detection` does."""


class Whiten(nn.Module):
    """Whitened spectra, (B, C, H, W) -> same, components of the largest variance first.

    A sample that is not finite counts as the mean's.

    Args:
        bands: Bands C.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.mean_C: Tensor
        self.matrix_CC: Tensor
        self.register_buffer("mean_C", torch.zeros(bands))
        self.register_buffer("matrix_CC", torch.eye(bands))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        away = x_BCHW - self.mean_C[:, None, None]
        away = torch.where(away.isfinite(), away, 0.0)
        return torch.einsum("kc,bchw->bkhw", self.matrix_CC, away)

    def target(self, target_C: Tensor) -> Tensor:
        """Return a spectrum (C) whitened."""
        return self(target_C[None, :, None, None])[0, :, 0, 0]


def fit_whiten(image_CHW: Tensor) -> Whiten:
    """Return what whitens an image's spectra and weighs components by their share of signal.

    Without the weights the squared length of a spectrum is RX's statistic. Neighbours have the same
    signal and different noise, so half the variance of their difference is that of the noise; what
    a Wiener filter would leave of a component is its weight.

    Args:
        image_CHW: Background, and a few targets; pixels that are not finite do not count.

    Raises:
        ValueError: There are fewer than two pixels.

    Source: Green et al. 1988, doi:10.1109/36.3001 (noise from differences of neighbours).
    """
    bands = len(image_CHW)
    x_NC = image_CHW.flatten(1).T
    known_NC = x_NC[x_NC.isfinite().all(1)].double()
    if len(known_NC) < 2:
        raise ValueError(f"expected two finite spectra or more, got {len(known_NC)} of {len(x_NC)}")
    mean_C = known_NC.mean(0)
    away_NC = known_NC - mean_C
    covariance = away_NC.T @ away_NC / len(away_NC)
    covariance += RIDGE * covariance.trace() / bands * torch.eye(bands, dtype=torch.float64)
    variance_K, axes_CK = torch.linalg.eigh(covariance)
    model = Whiten(bands)
    model.mean_C.copy_(mean_C)
    model.matrix_CC.copy_((axes_CK / variance_K.sqrt()).T.flip(0))
    model.matrix_CC *= signal_share(model(image_CHW[None])[0])[:, None]
    return model


def signal_share(z_KHW: Tensor) -> Tensor:
    """Return the share of each component's variance (K) that neighbours have in common, 0 to 1."""
    power_K = z_KHW.square().mean((1, 2)).clamp_min(EPS)
    noise_K = torch.stack([z_KHW.diff(dim=d).square().mean((1, 2)) / 2 for d in (1, 2)]).amin(0)
    return (1 - noise_K / power_K).clamp(0, 1)
