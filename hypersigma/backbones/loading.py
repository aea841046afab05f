"""Put pretrained weights into an encoder of another band count, window or patch size.

Shape letters: L tokens, D width, K bands before, N bands after, h w kernel or token grid.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypersigma.backbones.spatial import SpatialViT
from hypersigma.backbones.spectral import SpectralViT
from hypersigma.bands import map_bands
from hypersigma.layers.positions import (
    resample_bands,
    resample_positions,
    resize_kernel,
    resize_map,
)

PATCHES = "patch_embed.proj.weight"


@dataclass(frozen=True)
class Report:
    """What became of every key of a checkpoint and of a model, in words."""

    loaded: tuple[str, ...]
    """Names taken over as they are."""

    resized: tuple[str, ...]
    """`name: (old shape) -> (new shape)`"""

    ignored: tuple[str, ...]
    """`name: why` for what the checkpoint has and the encoder does not use."""

    missing: tuple[str, ...]
    """`name: why` for what the encoder has and keeps as constructed."""

    bands: str = ""
    """How weights for some bands became weights for others; empty if the bands are the same."""

    def __str__(self) -> str:
        """Return it in words; keys with one reason in common are counted, not listed."""
        lines = [f"{len(self.loaded)} keys loaded as they are"]
        lines += [f"resized: {text}" for text in self.resized]
        lines += [f"bands: {self.bands}"] if self.bands else []
        for word in ("ignored", "missing"):
            reasons = Counter(text.partition(": ")[2] for text in getattr(self, word))
            lines += [f"{word}: {count} keys: {why}" for why, count in reasons.items()]
        return "\n".join(lines)


def load_encoder(
    model: SpatialViT | SpectralViT,
    state_dict: Mapping[str, Tensor],
    *,
    seen: Sequence[Sequence[float]] = (),
    bands: Sequence[float] = (),
) -> Report:
    """Load the encoder's part of a masked autoencoder's (or encoder's) state dict into `model`.

    `pos_embed` is resampled bicubically; `patch_embed.proj` and `spat_map` are resized as 2-D
    kernels, the former also over its bands: by wavelength (`map_bands`), or by their order if
    wavelengths are not known.

    Args:
        model: Changed in place.
        state_dict: Of the pretrained model.
        seen: Band centres [nm] of each sensor that it was trained on.
        bands: Band centres [nm] of the images that `model` will see.

    Raises:
        ValueError: Nothing fits (another kind of encoder), a block's weight has another shape
            (another size of encoder), or no band of the images is one that was trained on.
    """
    entry = PATCHES if isinstance(model, SpatialViT) else "spat_map.weight"
    if entry not in state_dict:
        raise ValueError(f"expected the weights of a {type(model).__name__}, found no {entry}")
    own = model.state_dict()
    kernel, words = state_dict[entry], ""
    if entry == PATCHES:
        kernel, words = _other_bands(kernel, own[entry].shape[1], seen, bands)
    fitted: dict[str, Tensor] = {}
    loaded, resized, ignored = [], [], []
    for name, value in state_dict.items():
        reason = _reason_to_ignore(name, model, own)
        if reason:
            ignored.append(f"{name}: {reason}")
            continue
        given = kernel if name == entry else value
        fitting = fit(name, given, own[name].shape, line=isinstance(model, SpectralViT))
        if fitting is None:
            raise ValueError(wrong_size(name, value, own[name]))
        fitted[name] = fitting
        if fitting is value:
            loaded.append(name)
        else:
            resized.append(f"{name}: {tuple(value.shape)} -> {tuple(own[name].shape)}")
    model.load_state_dict(fitted, strict=False)
    missing = [f"{name}: {_reason_missing(name)}" for name in own if name not in fitted]
    return Report(tuple(loaded), tuple(resized), tuple(ignored), tuple(missing), words)


def _other_bands(
    kernel_DKhw: Tensor, count: int, seen: Sequence[Sequence[float]], bands: Sequence[float]
) -> tuple[Tensor, str]:
    """Return the patch kernels for other bands (D, N, h, w), and how in words."""
    had = kernel_DKhw.shape[1]
    if not (seen and bands):
        by_order = f"{had} bands to {count} by their order: wavelengths are not known"
        return resample_bands(kernel_DKhw, count), by_order if had != count else ""
    if len(bands) != count:
        raise ValueError(f"expected the wavelengths of {count} bands, got {len(bands)}")
    found = map_bands(seen, had, bands)
    if not found.words:
        return kernel_DKhw, ""
    return torch.einsum("dkhw,kn->dnhw", kernel_DKhw, found.matrix), found.words


def _reason_to_ignore(
    name: str, model: SpatialViT | SpectralViT, own: Mapping[str, Tensor]
) -> str | None:
    if name == "pos_embed" and isinstance(model, SpectralViT) and not model.compat:
        return "positions come from the wavelength"
    if name in own:
        return None
    if is_decoder(name):
        return "belongs to the decoder"
    return "not in this encoder"


def _reason_missing(name: str) -> str:
    if "sampling_offsets" in name:
        return "new, sampling attention is not pretrained"
    if name == "pos_embed":
        return "not used, positions come from the wavelength"
    return "not in the checkpoint, stays as constructed"


def is_decoder(name: str) -> bool:
    """Return whether an entry belongs to a masked autoencoder's decoder."""
    return name == "mask_token" or name.startswith("decoder_")


def wrong_size(name: str, value: Tensor, own: Tensor) -> str:
    """Return what to say of a weight that makes all others useless."""
    return (
        f"{name}: expected {tuple(own.shape)}, got {tuple(value.shape)}; "
        "the checkpoint is of another size of encoder"
    )


def fit(name: str, value: Tensor, shape: torch.Size, *, line: bool) -> Tensor | None:
    """Return a weight at another shape, or None if it is not one that can be resized.

    Args:
        name: Its name in an encoder.
        value: The weight.
        shape: The shape that it shall have.
        line: The encoder's tokens are bands, a line, and not a square of patches. They are a line
            also where sampling attention sees them as a raster.
    """
    if value.shape == shape:
        return value
    if value.dim() != len(shape) or value.shape[0] != shape[0]:
        return None
    value = value.float()
    if name in ("pos_embed", "pos_embed_add") and value.shape[2] == shape[2]:
        grids = _token_grid(value.shape[1], line=line), _token_grid(shape[1], line=line)
        return resample_positions(value, *grids)
    if name == PATCHES:
        return resample_bands(resize_kernel(value, (shape[2], shape[3])), shape[1])
    if name == "spat_map.weight":
        side = math.isqrt(shape[1])
        return resize_map(value, (side, side))
    return None


def _token_grid(tokens: int, *, line: bool) -> tuple[int, int]:
    if line:
        return tokens, 1
    side = math.isqrt(tokens)
    return side, side
