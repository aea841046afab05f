"""Sparse sampling attention (SSA): each token looks at a few learnt places of the token grid.

Shape letters: B batch, L tokens = h * w, D width, N heads, H head width, I = N * H, P points.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypersigma.layers.sampled import attend_by_corners


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
        x_BNLP, y_BNLP = self._places(q_BLI, grid)
        # In float32 whatever comes in: places in half precision would be off by whole tokens.
        q_BNLH, k_BNLH, v_BNLH = (self._heads(t).float() for t in (q_BLI, k_BLI, v_BLI))
        attend = attend_by_corners if x_BLD.device.type == "cpu" else attend_by_samples
        out_BNLH = attend(q_BNLH, k_BNLH, v_BNLH, x_BNLP, y_BNLP, grid)
        return self.proj(out_BNLH.transpose(1, 2).flatten(2).to(q_BLI.dtype))

    def _heads(self, x_BLI: Tensor) -> Tensor:
        return x_BLI.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _places(self, q_BLI: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return where to sample, x and y (B, N, L, P) in tokens, 0 at the first one's centre."""
        h, w = grid
        offsets = self.sampling_offsets(q_BLI).float()
        dx_dy_BNLP = offsets.unflatten(-1, (self.num_heads, self.num_points, 2)).transpose(1, 2)
        x_L1 = torch.arange(w, device=q_BLI.device).repeat(h)[:, None]
        y_L1 = torch.arange(h, device=q_BLI.device).repeat_interleave(w)[:, None]
        return x_L1 + dx_dy_BNLP[..., 0], y_L1 + dx_dy_BNLP[..., 1]


def attend_by_samples(
    q_BNLH: Tensor,
    k_BNLH: Tensor,
    v_BNLH: Tensor,
    x_BNLP: Tensor,
    y_BNLP: Tensor,
    grid: tuple[int, int],
) -> Tensor:
    """Return the attention (B, N, L, H) of each token to its places by sampling them.

    The plain form, of 2 P H numbers a token and head; on a GPU one kernel samples.
    """
    h, w = grid
    places = torch.stack(((2 * x_BNLP + 1) / w - 1, (2 * y_BNLP + 1) / h - 1), -1)
    maps = torch.cat((k_BNLH, v_BNLH), -1).flatten(0, 1).transpose(1, 2).unflatten(2, grid)
    sampled = F.grid_sample(maps, places.flatten(0, 1), align_corners=False)
    k_BNHLP, v_BNHLP = sampled.unflatten(0, k_BNLH.shape[:2]).chunk(2, dim=2)
    score_BNLP = torch.einsum("bnlh,bnhlp->bnlp", q_BNLH, k_BNHLP) * q_BNLH.shape[-1] ** -0.5
    return torch.einsum("bnlp,bnhlp->bnlh", score_BNLP.softmax(-1), v_BNHLP)
