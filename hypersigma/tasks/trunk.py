"""The trunk that tasks share: a spatial encoder, a spectral one, or both fused.

Shape letters: B batch, C bands, H W pixels, D width, R reduced width; `...` is nothing or h, w.

Source: Wang et al. 2025 (HyperSIGMA), doi:10.1109/TPAMI.2025.3557581 (spectral enhancement).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hypersigma.backbones.sizes import Sampled, SizeName
from hypersigma.backbones.spatial import SpatialViT, spatial
from hypersigma.backbones.spectral import SpectralViT, spectral
from hypersigma.features import Features

type Mode = Literal["spatial", "spectral", "both"]

REDUCED = 128
"""Width R that every level of an encoder is reduced to, as published."""

BAND_CHANNELS = 8
"""Values that the spectral summary keeps of each token; keeping tokens apart is what matters."""

TOKENS = 100
"""Tokens of the spectral encoder at most, as published."""


class Trunk(nn.Module):
    """One encoder or both, and what the spectrum tells the spatial levels.

    A task derives from it and makes of each spatial level what it needs, R wide; with both
    encoders `enhance` then scales these parts by what the spectral encoder saw.

    Args:
        spatial: The spatial encoder, or None.
        spectral: The spectral encoder, or None.

    Raises:
        ValueError: No encoder is given.
    """

    def __init__(self, *, spatial: SpatialViT | None, spectral: SpectralViT | None) -> None:
        super().__init__()
        if spatial is None and spectral is None:
            raise ValueError("a trunk needs a spatial or a spectral encoder, got none")
        self.spatial, self.spectral = spatial, spectral
        self.levels = 0 if spatial is None else len(spatial.size.levels)
        if spectral is not None:
            self.summary = BandSummary(spectral)
        if spatial is not None and spectral is not None:
            self.gate = nn.Sequential(
                nn.Linear(REDUCED, REDUCED), nn.ReLU(),
                nn.Linear(REDUCED, self.levels * REDUCED), nn.Sigmoid(),
            )  # fmt: skip

    def spectrum(self, x_BCHW: Tensor, wavelength_BC: Tensor | None) -> Tensor | None:
        """Return what the spectral encoder sees in an image, (B, R); None without one."""
        if self.spectral is None:
            return None
        summary: Tensor = self.summary(self.spectral.pyramid(x_BCHW, wavelength_BC))
        return summary

    def enhance(self, parts: Sequence[Tensor], spectrum_BR: Tensor | None) -> list[Tensor]:
        """Return the levels' parts (B, R, ...) times 1 + w, w in (0, 1) by level and channel.

        Without the spectrum (None) they stay as they are.
        """
        if spectrum_BR is None:
            return list(parts)
        weights = self.gate(spectrum_BR).chunk(self.levels, -1)
        return [
            (1 + w_BR.view(*w_BR.shape, *[1] * (part.ndim - 2))) * part
            for w_BR, part in zip(weights, parts, strict=True)
        ]


class BandSummary(nn.Module):
    """One vector (B, R) from the tokens of all levels of a spectral encoder, kept apart by band.

    A mean over the tokens would leave only what does not depend on which band it came from.
    """

    def __init__(self, encoder: SpectralViT) -> None:
        super().__init__()
        size = encoder.size
        self.channels = nn.Linear(len(size.levels) * size.dim, BAND_CHANNELS)
        self.bands = nn.Linear(encoder.num_tokens * BAND_CHANNELS, REDUCED)

    def forward(self, levels: tuple[Features, ...]) -> Tensor:
        tokens_BLD = torch.cat([features.tokens for features in levels], -1)
        return self.bands(self.channels(tokens_BLD).flatten(1))


def build_encoders(
    mode: Mode,
    size: SizeName,
    *,
    in_chans: int,
    spatial_size: int,
    spectral_size: int,
    patch_size: int,
    ssa: Sampled = True,
    recompute: bool = False,
) -> tuple[SpatialViT | None, SpectralViT | None]:
    """Return the new encoders that a mode has; `load_encoder` fills them.

    The spectral encoder has a token for every band, 100 at most.

    Args:
        mode: Which encoders there are.
        size: Of both.
        in_chans: Bands.
        spatial_size: Side of the images that the spatial encoder is made for [pixel].
        spectral_size: The same of the spectral one.
        patch_size: Side of the spatial encoder's patches [pixel].
        ssa: Which blocks have sampling attention, see `Size`.
        recompute: Activation checkpointing.
    """
    return (
        spatial(
            size, in_chans=in_chans, img_size=spatial_size, patch_size=patch_size, ssa=ssa,
            recompute=recompute,
        ) if mode != "spectral" else None,
        spectral(
            size, num_tokens=min(in_chans, TOKENS), img_size=spectral_size, ssa=ssa,
            recompute=recompute,
        ) if mode != "spatial" else None,
    )  # fmt: skip
