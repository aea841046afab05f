"""What the optimiser is told: parameter groups, and the learning rate as a function of the step."""

import math
import re

import pydantic.dataclasses
import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import nn

_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:patch_embed|spat_map|pos_embed|cls_token)\b")
REFERENCE_BATCH = 256
"""Samples a step that `blr` is given for; the rate grows in proportion to the batch.

Source: Goyal et al. 2017, arXiv:1706.02677, linear scaling; as used by MAE, arXiv:2111.06377.
"""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class OptimConfig:
    """AdamW, warm-up and half cosine; the defaults are the published pretraining recipe."""

    blr: PositiveFloat = 1.5e-4
    """Peak learning rate for a batch of 256 samples a step."""
    min_lr: NonNegativeFloat = 0.0
    """Learning rate that the half cosine ends at."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises linearly to its peak."""
    weight_decay: NonNegativeFloat = 0.05
    """Decay of the tensors with two or more dimensions."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's running means of gradient and squared gradient."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient over all parameters."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """What the rate of each block of an encoder is of that of the block above it; heads have the
    whole rate, patch embeddings the lowest. Null: all have the same. Published fine-tuning says 0.9
    (and does not do it)."""

    def peak_lr(self, samples_per_step: int) -> float:
        """Return the peak learning rate for a batch of this many samples."""
        return self.blr * samples_per_step / REFERENCE_BATCH


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters; 1-D tensors (biases, norms) do not decay.

    Each group's `scale` is its share of the learning rate.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    scales = layer_scales(model, config.layer_decay or 1.0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((scales[name], parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[key], "scale": key[0], "weight_decay": config.weight_decay * key[1]}
            for key in sorted(groups, reverse=True)
        ],
        lr=config.blr, betas=config.betas, fused=True,
    )  # fmt: skip


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """Return each parameter's share of the learning rate.

    With n blocks in the deepest encoder, block i of one has decay ** (n - i), counted from 0, what
    comes before the blocks decay ** (n + 1), all else 1.

    Source: Clark et al. 2020, arXiv:2003.10555, appendix A; Bao et al. 2022, arXiv:2106.08254.
    """
    found = {name: _BLOCK.search(name) for name, _ in model.named_parameters()}
    depth = max((int(block[1]) + 1 for block in found.values() if block), default=0)
    return {
        name: decay ** (depth - int(block[1])) if block
        else decay ** (depth + 1) if depth and _EMBEDDING.search(name) else 1.0
        for name, block in found.items()
    }  # fmt: skip


def learning_rate(step: int, *, steps: int, samples_per_step: int, config: OptimConfig) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then half a cosine.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, with one period.
    """
    peak = config.peak_lr(samples_per_step)
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.min_lr + (peak - config.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group its share of the learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
