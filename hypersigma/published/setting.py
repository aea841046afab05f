"""What is free in a published model."""

from dataclasses import dataclass

from hypersigma.backbones.sizes import SizeName


@dataclass(frozen=True)
class Setting:
    """The free numbers of one published model; 0 for those that it does not have."""

    in_chans: int
    """Bands of an image."""

    img_size: int
    """Pixels along the side of the images that the weights are made for."""

    patch_size: int = 0
    """Pixels along a patch side of the spatial encoder."""

    num_tokens: int = 0
    """Tokens of the spectral encoder, a square number; 0 where there is none."""

    num_classes: int = 0
    """Classes of pixels."""

    num_endmembers: int = 0
    """Materials that a pixel is mixed of."""

    scale: int = 0
    """Pixels of the output along a pixel of the input."""

    mask_ratio: float = 0.0
    """Share of tokens that a masked autoencoder hides."""

    size: SizeName = "base"
    """Widths and depths of the encoders."""
