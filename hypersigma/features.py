"""What a backbone hands to a task.

Shape letters: B batch, L tokens, D width, h w token grid.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Tokens of one depth of a backbone, without class token."""

    tokens: Tensor
    """(B, L, D)"""

    grid: tuple[int, int]
    """(h, w) with L = h * w, row by row; (L, 1) where the tokens are bands."""
