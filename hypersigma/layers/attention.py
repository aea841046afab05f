"""Full multi-head self-attention.

Shape letters: B batch, L tokens, D width, N heads, H head width.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, (B, L, D) -> (B, L, D).

    Args:
        dim: Token width D.
        num_heads: Heads N. The head width is D // N, so N need not divide D.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = dim // num_heads * num_heads
        self.qkv = nn.Linear(dim, 3 * inner)
        self.proj = nn.Linear(inner, dim)

    def forward(self, x_BLD: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the mixed tokens; `grid` is not used (it is what sampling attention needs)."""
        qkv_BLNH = self.qkv(x_BLD).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        q_BNLH, k_BNLH, v_BNLH = (t.transpose(1, 2) for t in qkv_BLNH)
        out_BNLH = F.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH)
        return self.proj(out_BNLH.transpose(1, 2).flatten(2))
