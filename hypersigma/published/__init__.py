"""The published HyperSIGMA models, under the names of their parameters, with their weights.

`load` makes a model of published weights and reports on every key; `read` gets them out of a file.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from hypersigma.backbones.loading import Report
from hypersigma.backbones.sizes import SIZES
from hypersigma.published.files import WeightsError, read, state_dict_of
from hypersigma.published.loading import match
from hypersigma.published.models import MODELS
from hypersigma.published.setting import Setting
from hypersigma.published.unused import unused_names

__all__ = [
    "MODELS",
    "Report",
    "Setting",
    "WeightsError",
    "build",
    "load",
    "read",
    "setting",
    "unused_names",
]


def load(name: str, state_dict: Mapping[str, Any], **config: Any) -> tuple[nn.Module, Report]:
    """Return a published model with its weights, in evaluation mode, and what became of each key.

    Weights for another number of bands, image, patch or token number are resized where that makes
    sense: `pos_embed`, `patch_embed.proj` and `spat_map` of the encoders. What has no weights is
    drawn anew; the report says so.

    Args:
        name: One of `MODELS`.
        state_dict: Weights by name, or a checkpoint that holds them, see `read`.
        config: What differs from the published setting; see `Setting`.

    Raises:
        ValueError: An unknown name or config; weights of another model or size.
    """
    chosen = setting(name, **config)
    weights = state_dict_of(state_dict)
    make = MODELS[name][0]
    with torch.device("meta"):
        model = make(chosen)
    fitted, report = match(model.state_dict(), unused_names(model), weights)
    # Drawing millions of weights takes seconds, and only what is missing needs it.
    model = make(chosen) if report.missing else model.to_empty(device="cpu")
    model.load_state_dict(fitted, strict=False)
    return model.eval(), report


def build(name: str, **config: Any) -> nn.Module:
    """Return a published model with new weights; the arguments are those of `load`.

    Raises:
        ValueError: An unknown name or config.
    """
    chosen = setting(name, **config)
    return MODELS[name][0](chosen)


def setting(name: str, **config: Any) -> Setting:
    """Return the published setting of a model with changes.

    Raises:
        ValueError: An unknown name; a number that this model does not have.
    """
    if name not in MODELS:
        raise ValueError(f"expected one of {', '.join(MODELS)}; got {name!r}")
    published = MODELS[name][1]
    free = {key: value for key, value in asdict(published).items() if value}
    unknown = [key for key in config if key not in free]
    if unknown:
        raise ValueError(f"{name}: expected only {', '.join(free)} as config, got {unknown[0]}")
    if config.get("size", published.size) not in SIZES:
        raise ValueError(f"expected one of the sizes {', '.join(SIZES)}, got {config['size']!r}")
    return replace(published, **config)
