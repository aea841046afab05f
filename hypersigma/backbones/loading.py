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
        fitted[name] = _fit(name, kernel if name == entry else value, own[name], model)
        if fitted[name] is value:
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
    if name == "mask_token" or name.startswith("decoder_"):
        return "belongs to the decoder"
    return "not in this encoder"


def _reason_missing(name: str) -> str:
    if "sampling_offsets" in name:
        return "new, sampling attention is not pretrained"
    if name == "pos_embed":
        return "not used, positions come from the wavelength"
    return "not in the checkpoint, stays as constructed"


def _fit(name: str, value: Tensor, own: Tensor, model: SpatialViT | SpectralViT) -> Tensor:
    if value.shape == own.shape:
        return value
    if value.shape[0] == own.shape[0] and value.dim() == own.dim():
        if name == "pos_embed" and value.shape[2] == own.shape[2]:
            return resample_positions(value, _token_grid(value.shape[1], model), model.grid)
        if name == PATCHES:
            return resize_kernel(value, (own.shape[2], own.shape[3]))
        if name == "spat_map.weight" and isinstance(model, SpectralViT):
            return resize_map(value, (model.img_size, model.img_size))
    raise ValueError(
        f"{name}: expected {tuple(own.shape)}, got {tuple(value.shape)}; "
        "the checkpoint is of another size of encoder"
    )


def _token_grid(tokens: int, model: SpatialViT | SpectralViT) -> tuple[int, int]:
    if isinstance(model, SpectralViT):
        # Bands are a line, also where sampling attention sees them as a raster.
        return tokens, 1
    side = math.isqrt(tokens)
    return side, side
