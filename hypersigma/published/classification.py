"""The published classifiers of the middle pixel of a window.

Shape letters: B batch, C bands, w window pixels, D width, h w map, K classes.
"""

import torch
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES
from hypersigma.published.encoders import (
    Spatial,
    Spectral,
    add_numbered,
    apply_numbered,
    band_convolutions,
    scales,
    sized,
)
from hypersigma.published.setting import Setting
from hypersigma.published.trunk import Trunk, pointwise
from hypersigma.published.unused import Shapes, add_unused, with_biases

SQUEEZED = 128
"""Channels of a map in front of a fused head."""


class SpatialClassifier(Spatial):
    """SpatSIGMA for classification, (B, C, w, w) -> logits (B, K)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, learnt_positions=True)
        dim = self.size.dim
        self.classifier = linear_layers(4 * dim, setting.num_classes)
        dead: dict[str, tuple[int, ...]] = {"cls": (setting.num_classes, 128, 1, 1)}
        if setting.patch_size in (1, 2):
            dead["fpn1.0"] = (dim, dim, 2, 2)
        add_unused(self, {"DR.weight": (128, 4 * dim, 1), **with_biases(dead)})

    def forward(self, x_BCww: Tensor) -> Tensor:  # type: ignore[override]  # the published call
        means = [x_BDhw.mean((2, 3)) for x_BDhw in reversed(self.maps(x_BCww))]
        return self.classifier(torch.cat(means, 1))


class FusedClassifier(Trunk):
    """HyperSIGMA for classification, (B, C, w, w) -> logits (B, K)."""

    def __init__(self, setting: Setting) -> None:
        dim, classes = SIZES[setting.size].dim, setting.num_classes
        super().__init__(
            Spatial(setting, learnt_positions=True, necks=scales(dim, setting.patch_size)),
            # Of the four levels that the published one asks for, it uses the first.
            Spectral(setting, size=sized(setting.size, 0), learnt_positions=True),
            gates=4, hidden=128, channels=SQUEEZED,
        )  # fmt: skip
        add_numbered(self, "DR", [pointwise(dim, SQUEEZED) for _ in range(4)])
        self.classifier = nn.Sequential(
            nn.Linear(4 * SQUEEZED, 256), nn.Dropout(0.4),
            nn.Linear(256, 128), nn.Dropout(0.4),
            nn.Linear(128, classes),
        )  # fmt: skip
        add_unused(self, {"conv_features.weight": (64, dim, 1, 1)})
        add_unused(self, with_biases({"conv": (128, 512, 1, 1)}))
        add_unused(self.spat_encoder, with_biases({"cls": (classes, 4 * dim, 1, 1)}))
        # Fixed numbers in all sizes.
        add_unused(self.spat_encoder, linear_shapes("classifier", 49152, classes))
        add_unused(self.spat_encoder, linear_shapes("classifier1", 3072, classes))
        add_unused(self.spec_encoder, band_convolutions(setting.num_tokens, 4))

    def forward(self, x_BCww: Tensor) -> Tensor:
        reduced = apply_numbered(self, "DR", self.maps(x_BCww)[::-1])
        means = [x.mean((2, 3)) for x in self.enhance(reduced, x_BCww)]
        return self.classifier(torch.cat(means, 1))


def linear_layers(dim: int, num_classes: int) -> nn.Sequential:
    """Return the three linear layers, with nothing between them, that spatial models end in."""
    return nn.Sequential(nn.Linear(dim, 128), nn.Linear(128, 64), nn.Linear(64, num_classes))


def linear_shapes(name: str, dim: int, num_classes: int) -> Shapes:
    """Return the shapes of such layers where they are not used."""
    return with_biases(
        {f"{name}.0": (128, dim), f"{name}.1": (64, 128), f"{name}.2": (num_classes, 64)}
    )
