"""Encoders: from images to tokens; may import layers and features."""

from collections.abc import Callable

from hypersigma.backbones.spatial import SpatialViT, spatial
from hypersigma.backbones.spectral import SpectralViT, spectral

BACKBONES: dict[str, Callable[..., SpatialViT | SpectralViT]] = {
    "spatial": spatial,
    "spectral": spectral,
}
