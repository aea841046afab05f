"""The transformer block and stacks of it.

Shape letters: B batch, L tokens, M tokens that are wanted, D width.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hypersigma.layers.attention import Attention
from hypersigma.layers.sampling_attention import SamplingAttention

NORM_EPS = 1e-6


class Block(nn.Module):
    """Attention then MLP, each normalised first and added back, (B, L, D) -> (B, L, D).

    Args:
        dim: Token width D.
        num_heads: Attention heads.
        drop_path: Probability that a sample skips a branch while training.
        attn_layer: Token mixer, made by `attn_layer(dim, num_heads)`, called with tokens and grid.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        drop_path: float = 0.0,
        attn_layer: Callable[[int, int], nn.Module] = Attention,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = attn_layer(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BLD: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        x_BLD = add_branch(x_BLD, lambda t: self.attn(self.norm1(t), grid), self.drop_path)
        return add_branch(x_BLD, lambda t: self.mlp(self.norm2(t)), self.drop_path)

    def forward_only(self, x_BLD: Tensor, places_BM: Tensor) -> Tensor:
        """Return only the tokens (B, M, D) at the places; the block must attend to all tokens."""
        at_BMD = places_BM[..., None].expand(-1, -1, x_BLD.shape[-1])
        normed_BLD = self.norm1(x_BLD)
        mixed_BMD = self.attn(normed_BLD, None, normed_BLD.gather(1, at_BMD))
        x_BMD = x_BLD.gather(1, at_BMD) + self.drop_path(mixed_BMD)
        return add_branch(x_BMD, lambda t: self.mlp(self.norm2(t)), self.drop_path)


def add_branch(x_BLD: Tensor, branch: Callable[[Tensor], Tensor], drop: DropPath) -> Tensor:
    """Return the tokens plus those of a branch, which samples skip at random in training.

    On a CPU a branch is not run for samples that skip it; what is drawn and returned is the same.
    (On a GPU their number would have to be waited for, and a compiled graph has fixed shapes.)
    """
    stays = 1.0 - (drop.drop_prob if drop.training else 0.0)
    if stays == 1 or x_BLD.device.type != "cpu" or torch.compiler.is_compiling():
        return x_BLD + drop(branch(x_BLD))
    drawn_B = x_BLD.new_empty(len(x_BLD)).bernoulli_(stays)
    kept = drawn_B.nonzero()[:, 0]
    if len(kept) in (0, len(x_BLD)):  # with none, too, all parameters have to get a gradient
        return x_BLD + branch(x_BLD) * (drawn_B / stays)[:, None, None]
    return x_BLD.index_add(0, kept, branch(x_BLD[kept]).to(x_BLD.dtype), alpha=1 / stays)


def run_block(run: Callable[..., Tensor], x_BLD: Tensor, *rest: Any, recompute: bool) -> Tensor:
    """Return `run(x_BLD, *rest)` of a block, with activation checkpointing if `recompute`.

    Then only the input is kept for the backward pass, which runs the block again.
    """
    if recompute and torch.is_grad_enabled():
        out: Tensor = checkpoint(run, x_BLD, *rest, use_reentrant=False)
        return out
    return run(x_BLD, *rest)


def block_stack(
    dim: int,
    num_heads: int,
    *,
    drop_paths: Sequence[float],
    sampled: Sequence[bool],
    num_points: int = 8,
) -> nn.ModuleList:
    """Return initialised blocks, block i with sampling attention where `sampled[i]`.

    Linear weights are N(0, 0.02) cut at 2, biases 0; the two layers that write to the residual
    stream of block i are divided by sqrt(2 (i + 1)), so that its variance does not grow with depth.
    """
    sampling = partial(SamplingAttention, num_points=num_points)
    blocks = nn.ModuleList(
        Block(dim, num_heads, drop_path=p, attn_layer=sampling if ssa else Attention)
        for p, ssa in zip(drop_paths, sampled, strict=True)
    )
    blocks.apply(init_linear)
    with torch.no_grad():
        for name, weight in blocks.named_parameters():
            if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
                weight.div_(math.sqrt(2 * (int(name.split(".")[0]) + 1)))
    return blocks


def init_linear(module: nn.Module) -> None:
    """Give a linear layer N(0, 0.02) weights cut at 2 and zero biases; leave others as they are."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
