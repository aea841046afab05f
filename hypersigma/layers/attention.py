"""Full multi-head self-attention.

Shape letters: B batch, L tokens, M tokens that are wanted, D width, N heads, H head width,
I = N * H.
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

    def forward(
        self,
        x_BLD: Tensor,
        grid: tuple[int, int] | None = None,
        only_BMD: Tensor | None = None,
    ) -> Tensor:
        """Return the mixed tokens.

        Args:
            x_BLD: Tokens.
            grid: Not used; it is what sampling attention needs.
            only_BMD: Those of the tokens that are wanted, all if None.
        """
        if only_BMD is None:
            q_BLI, k_BLI, v_BLI = self.qkv(x_BLD).chunk(3, dim=-1)
        else:
            inner = self.proj.in_features
            weight, bias = self.qkv.weight, self.qkv.bias
            q_BLI = F.linear(only_BMD, weight[:inner], bias[:inner])
            k_BLI, v_BLI = F.linear(x_BLD, weight[inner:], bias[inner:]).chunk(2, dim=-1)
        q_BNLH, k_BNLH, v_BNLH = (
            t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q_BLI, k_BLI, v_BLI)
        )
        out_BNLH = F.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH)
        return self.proj(out_BNLH.transpose(1, 2).flatten(2))
