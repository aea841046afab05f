"""What the optimiser is told: parameter groups, and the learning rate as a function of the step."""

import math

import pydantic.dataclasses
import torch
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import nn

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

    def peak_lr(self, samples_per_step: int) -> float:
        """Return the peak learning rate for a batch of this many samples."""
        return self.blr * samples_per_step / REFERENCE_BATCH


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters; 1-D tensors (biases, norms) do not decay."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.blr, betas=config.betas, fused=True)


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
    """Give every parameter group the learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
