"""The sizes of the model family."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hypersigma.layers.block import block_stack

type SizeName = Literal["tiny", "base", "large", "huge"]

type Sampled = bool | Sequence[int]
"""Which blocks have sampling attention, the others have full attention: none (false), all but every
`Size.interval`-th (true, as published), or those of the numbers given, counted from 0."""


@dataclass(frozen=True)
class Size:
    """Widths and depths of an encoder and of the decoder that it is pretrained with."""

    dim: int
    depth: int
    heads: int
    interval: int
    """With sampling attention, every `interval`-th block still attends to all tokens."""

    levels: tuple[int, ...]
    """Blocks whose output a task may use, by ascending depth; the last one is the last block."""

    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    drop_path: float = 0.1
    """Probability of a skipped branch in the last block; grows linearly from 0 in the first."""

    def drop_paths(self) -> list[float]:
        """Return the probability of each block."""
        return [self.drop_path * i / max(self.depth - 1, 1) for i in range(self.depth)]


SIZES: dict[SizeName, Size] = {
    "tiny": Size(
        dim=64, depth=4, heads=4, interval=2, levels=(0, 1, 2, 3),
        decoder_dim=64, decoder_depth=2, decoder_heads=4, drop_path=0.0,
    ),
    "base": Size(dim=768, depth=12, heads=12, interval=3, levels=(3, 5, 7, 11)),
    "large": Size(dim=1024, depth=24, heads=16, interval=6, levels=(7, 11, 15, 23)),
    "huge": Size(dim=1280, depth=32, heads=16, interval=8, levels=(10, 15, 20, 31)),
}  # fmt: skip


def encoder_blocks(size: Size, *, ssa: Sampled, num_points: int = 8) -> nn.ModuleList:
    """Return the blocks of an encoder, those that `ssa` says with sampling attention.

    Raises:
        ValueError: `ssa` names a block that is not there.
    """
    if isinstance(ssa, bool):
        ssa = [i for i in range(size.depth) if ssa and (i + 1) % size.interval != 0]
    if not set(ssa) <= set(range(size.depth)):
        raise ValueError(f"ssa: expected blocks in 0..{size.depth - 1}, got {list(ssa)}")
    return block_stack(
        size.dim,
        size.heads,
        drop_paths=size.drop_paths(),
        sampled=[i in ssa for i in range(size.depth)],
        num_points=num_points,
    )
