"""Patch classification: from the window around a pixel to the class of that pixel.

Shape letters: B batch, C bands, w window pixels, L tokens, D width, R reduced width, K classes.
"""

from typing import Literal

import torch
import torch.nn.functional as F
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


class PatchClassifier(nn.Module):
    """Class of the centre pixel of a window, (B, C, w, w) -> logits (B, K).

    Each level of the spatial encoder gives the token that holds the centre pixel and the mean of
    all tokens. Each token of the spectral encoder gives a few values, kept apart by band. With
    both encoders, the spectral summary also scales the spatial levels by 1 + w with w in (0, 1),
    channel by channel.

    The centre pixel of a window is (w // 2, w // 2). The window is padded by its border pixels so
    that this pixel lies in the middle of a patch, and to whole patches.

    Args:
        num_classes: Classes K.
        window: Pixels w along the window side.
        spatial: Encoder made for images of `padded_size(window, patch_size)` pixels, or None.
        spectral: Encoder made for images of `window` pixels, or None.

    Raises:
        ValueError: No encoder is given.

    Source: Wang et al. 2025, doi:10.1109/TPAMI.2025.3557581 (spectral enhancement).
    """

    def __init__(
        self,
        num_classes: int,
        window: int,
        *,
        spatial: SpatialViT | None,
        spectral: SpectralViT | None,
    ) -> None:
        super().__init__()
        if spatial is None and spectral is None:
            raise ValueError("a classifier needs a spatial or a spectral encoder, got none")
        self.window = window
        self.spatial, self.spectral = spatial, spectral
        width = 0
        if spatial is not None:
            levels = len(spatial.size.levels)
            self.reduce = nn.ModuleList(
                nn.Linear(2 * spatial.size.dim, REDUCED) for _ in range(levels)
            )
            width += levels * REDUCED
        if spectral is not None:
            self.summary = BandSummary(spectral)
            width += REDUCED
        if spatial is not None and spectral is not None:
            gates = levels * REDUCED
            self.gate = nn.Sequential(
                nn.Linear(REDUCED, REDUCED), nn.ReLU(), nn.Linear(REDUCED, gates), nn.Sigmoid()
            )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x_BCww: Tensor, wavelength_BC: Tensor | None = None) -> Tensor:
        """Return the logits (B, K).

        Args:
            x_BCww: Windows, standardised.
            wavelength_BC: Centre of each band [nm]; the spectral encoder needs it.

        Raises:
            ValueError: Windows of another size; wavelengths missing.
        """
        if x_BCww.shape[2:] != (self.window, self.window):
            raise ValueError(
                f"expected windows of {self.window} x {self.window} px, "
                f"got {x_BCww.shape[2]} x {x_BCww.shape[3]}"
            )
        parts = []
        if self.spatial is not None:
            parts.append(self._spatial_part(self.spatial, x_BCww, wavelength_BC))
        if self.spectral is not None:
            spectral_BR = self.summary(self.spectral.pyramid(x_BCww, wavelength_BC))
            if self.spatial is not None:
                parts[0] = (1 + self.gate(spectral_BR)) * parts[0]
            parts.append(spectral_BR)
        return self.head(self.norm(torch.cat(parts, -1)))

    def loss(self, logits_BK: Tensor, target_B: Tensor) -> Tensor:
        """Return the mean cross-entropy, a scalar; classes are 0..K-1."""
        return F.cross_entropy(logits_BK, target_B)

    def _spatial_part(
        self, encoder: SpatialViT, x_BCww: Tensor, wavelength_BC: Tensor | None
    ) -> Tensor:
        patch = encoder.patch_size
        before, after = centred_padding(self.window, patch)
        x_BCww = F.pad(x_BCww, (before, after, before, after), mode="replicate")
        row = (self.window // 2 + before) // patch
        pyramid = encoder.pyramid(x_BCww, wavelength_BC)
        levels = [
            reduce(centre_and_mean(features, row))
            for reduce, features in zip(self.reduce, pyramid, strict=True)
        ]
        return torch.cat(levels, -1)


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


def centre_and_mean(features: Features, row: int) -> Tensor:
    """Return the token at (`row`, `row`) of the grid beside the mean of all, (B, 2 D)."""
    centre = features.tokens[:, row * features.grid[1] + row]
    return torch.cat((centre, features.tokens.mean(1)), -1)


def centred_padding(window: int, patch_size: int) -> tuple[int, int]:
    """Return the pixels to add before and after a side.

    Then pixel `window // 2` is at place `patch_size // 2` of its patch, and patches are whole.
    """
    before = (patch_size // 2 - window // 2) % patch_size
    return before, -(window + before) % patch_size


def padded_size(window: int, patch_size: int) -> int:
    """Return the side of a window after `centred_padding`."""
    return window + sum(centred_padding(window, patch_size))


def build_classifier(
    mode: Mode,
    size: SizeName,
    *,
    in_chans: int,
    num_classes: int,
    window: int,
    patch_size: int,
    ssa: Sampled = True,
    recompute: bool = False,
) -> PatchClassifier:
    """Return a classifier with new encoders; `load_encoder` fills `.spatial` and `.spectral`.

    The spectral encoder has a token for every band, 100 at most.
    """
    spatial_encoder, spectral_encoder = None, None
    if mode in ("spatial", "both"):
        spatial_encoder = spatial(
            size, in_chans=in_chans, img_size=padded_size(window, patch_size),
            patch_size=patch_size, ssa=ssa, recompute=recompute,
        )  # fmt: skip
    if mode in ("spectral", "both"):
        tokens = min(in_chans, 100)
        spectral_encoder = spectral(
            size, num_tokens=tokens, img_size=window, ssa=ssa, recompute=recompute
        )
    return PatchClassifier(num_classes, window, spatial=spatial_encoder, spectral=spectral_encoder)
