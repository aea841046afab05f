"""Sparse sampling attention (SSA): each token looks at a few learnt places of the token grid.

Shape letters: B batch, L tokens = h * w, D width, N heads, H head width, I = N * H, P points.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SamplingAttention(nn.Module):
    """Self-attention over P bilinearly sampled places a head and token, (B, L, D) -> (B, L, D).

    The query predicts its offsets in tokens from its own place, without bound; what lies
    outside the grid counts as zeros. Keys and values share the places.

    Args:
        dim: Token width D.
        num_heads: Heads N. The head width is D // N, so N need not divide D.
        num_points: Sampled places P.

    Source: Wang et al. 2025 (HyperSIGMA), doi:10.1109/TPAMI.2025.3557581.
    """

    def __init__(self, dim: int, num_heads: int, num_points: int = 8) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_points = num_points
        inner = dim // num_heads * num_heads
        self.qkv = nn.Linear(dim, 3 * inner)
        self.sampling_offsets = nn.Linear(inner, num_heads * num_points * 2)
        self.proj = nn.Linear(inner, dim)

    def forward(self, x_BLD: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the mixed tokens.

        Raises:
            ValueError: `grid` (h, w) does not have the number of tokens given.
        """
        h, w = grid
        if x_BLD.shape[1] != h * w:
            raise ValueError(f"expected {h} x {w} = {h * w} tokens, got {x_BLD.shape[1]}")
        q_BLI, k_BLI, v_BLI = self.qkv(x_BLD).chunk(3, dim=-1)
        kv_BNHL = torch.cat([self._heads(t) for t in (k_BLI, v_BLI)], dim=2)
        sampled = _sample(kv_BNHL.unflatten(-1, grid), self._places(q_BLI, grid))
        k_BNHLP, v_BNHLP = sampled.chunk(2, dim=2)
        q_BNHL = self._heads(q_BLI)
        score_BNLP = (q_BNHL[..., None] * k_BNHLP).sum(2) * q_BNHL.shape[2] ** -0.5
        out_BNHL = (score_BNLP.softmax(-1)[:, :, None] * v_BNHLP).sum(-1)
        return self.proj(out_BNHL.flatten(1, 2).transpose(1, 2))

    def _heads(self, x_BLI: Tensor) -> Tensor:
        return x_BLI.unflatten(-1, (self.num_heads, -1)).permute(0, 2, 3, 1)

    def _places(self, q_BLI: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return where to sample, (B, N, L, P, 2) as (x, y) with the grid spanning [-1, 1]."""
        h, w = grid
        offsets = self.sampling_offsets(q_BLI).float()
        dx_dy_BNLP = offsets.unflatten(-1, (self.num_heads, self.num_points, 2)).transpose(1, 2)
        x_w = (torch.arange(w, device=q_BLI.device) + 0.5) / w
        y_h = (torch.arange(h, device=q_BLI.device) + 0.5) / h
        x_L1, y_L1 = x_w.repeat(h)[:, None], y_h.repeat_interleave(w)[:, None]
        x_BNLP, y_BNLP = x_L1 + dx_dy_BNLP[..., 0] / w, y_L1 + dx_dy_BNLP[..., 1] / h
        return torch.stack((x_BNLP, y_BNLP), -1) * 2 - 1


def _sample(kv_BNHhw: Tensor, places_BNLP2: Tensor) -> Tensor:
    """Return the bilinear samples (B, N, H, L, P), zeros outside the grid.

    In float32 whatever comes in: places in half precision would be off by whole tokens.
    """
    batch = kv_BNHhw.shape[:2]
    sampled = F.grid_sample(
        kv_BNHhw.flatten(0, 1).float(), places_BNLP2.flatten(0, 1), align_corners=False
    )
    return sampled.unflatten(0, batch).to(kv_BNHhw.dtype)
