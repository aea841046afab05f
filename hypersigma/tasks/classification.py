"""Patch classification: from the window around a pixel to the class of that pixel.

Shape letters: B batch, C bands, w window pixels, L tokens, D width, R reduced width, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypersigma.backbones.sizes import Sampled, SizeName
from hypersigma.backbones.spatial import SpatialViT
from hypersigma.backbones.spectral import SpectralViT
from hypersigma.features import Features
from hypersigma.tasks.trunk import REDUCED, Mode, Trunk, build_encoders


class PatchClassifier(Trunk):
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
        super().__init__(spatial=spatial, spectral=spectral)
        self.window = window
        if spatial is not None:
            self.reduce = nn.ModuleList(
                nn.Linear(2 * spatial.size.dim, REDUCED) for _ in range(self.levels)
            )
        width = (self.levels + (spectral is not None)) * REDUCED
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
        spectrum_BR = self.spectrum(x_BCww, wavelength_BC)
        parts = []
        if self.spatial is not None:
            levels = self._spatial_parts(self.spatial, x_BCww, wavelength_BC)
            parts += self.enhance(levels, spectrum_BR)
        if spectrum_BR is not None:
            parts.append(spectrum_BR)
        return self.head(self.norm(torch.cat(parts, -1)))

    def loss(self, logits_BK: Tensor, target_B: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy, a scalar; classes are 0..K-1.

        Args:
            logits_BK: Of the model.
            target_B: The true classes.
            smoothing: What of the target is spread over all classes. Source: Szegedy et al. 2016,
                arXiv:1512.00567, section 7.
        """
        return F.cross_entropy(logits_BK, target_B, label_smoothing=smoothing)

    def _spatial_parts(
        self, encoder: SpatialViT, x_BCww: Tensor, wavelength_BC: Tensor | None
    ) -> list[Tensor]:
        patch = encoder.patch_size
        before, after = centred_padding(self.window, patch)
        x_BCww = F.pad(x_BCww, (before, after, before, after), mode="replicate")
        row = (self.window // 2 + before) // patch
        pyramid = encoder.pyramid(x_BCww, wavelength_BC)
        return [
            reduce(centre_and_mean(features, row))
            for reduce, features in zip(self.reduce, pyramid, strict=True)
        ]


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
    """Return a classifier with new encoders; `load_encoder` fills `.spatial` and `.spectral`."""
    spatial, spectral = build_encoders(
        mode, size, in_chans=in_chans, spatial_size=padded_size(window, patch_size),
        spectral_size=window, patch_size=patch_size, ssa=ssa, recompute=recompute,
    )  # fmt: skip
    return PatchClassifier(num_classes, window, spatial=spatial, spectral=spectral)
