"""Attention to places between tokens: bilinear samples of keys and values, never written out.

A sample is a weighted sum of the rows at its four corners, so that its dot product with a query is
the same sum of the corners' dot products, and a sum of samples is a sum of rows. What has to be
kept is then a number a corner, where samples of keys and values are a row of H numbers a place.

Shape letters: B batch, N heads, L tokens = h * w, H head width, P places of a query; over batch and
heads, R queries and T tokens; c corners of a place.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def attend_by_corners(
    q_BNLH: Tensor,
    k_BNLH: Tensor,
    v_BNLH: Tensor,
    x_BNLP: Tensor,
    y_BNLP: Tensor,
    grid: tuple[int, int],
) -> Tensor:
    """Return softmax attention (B, N, L, H) of each token to its P places, scaled by H ** -0.5.

    Args:
        q_BNLH: Queries.
        k_BNLH: Keys, row by row of the grid.
        v_BNLH: Values.
        x_BNLP: Columns of the places in tokens, 0 at the centre of the first; zeros are outside.
        y_BNLP: Rows of the places.
        grid: (h, w) with L = h * w.
    """
    (h, w), shape = grid, q_BNLH.shape
    ix, wx = _corners(x_BNLP, w)
    iy, wy = _corners(y_BNLP, h)
    first = torch.arange(shape[0] * shape[1], dtype=torch.int32, device=ix.device) * (h * w)
    corner = first.view(*shape[:2], 1, 1, 1, 1) + iy[..., :, None] * w + ix[..., None, :]
    weight = wy[..., :, None] * wx[..., None, :]
    out: Tensor = _SampledAttention.apply(
        *(t.reshape(-1, shape[-1]) for t in (q_BNLH, k_BNLH, v_BNLH)),
        *(t.flatten(4).flatten(0, 2) for t in (corner, weight)),
    )
    return out.view(shape)


def _corners(place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the two neighbours (..., 2) of places on one axis, and their shares, 0 if outside."""
    place = place.clamp(-1, count)  # far outside is outside, and an int32
    before = place.floor()
    step = torch.tensor([0, 1], dtype=torch.int32, device=place.device)
    number = before.detach().int()[..., None] + step
    inside = number.clamp(0, count - 1)
    share = (1 - step) + (place - before)[..., None] * (2 * step - 1)
    return inside, share * (number == inside)


class _SampledAttention(torch.autograd.Function):
    """With s = q.k at corners, a = softmax of the places' sums of w s, o = sum of a w v.

    Backward, with g the gradient of o and t = g.v at corners:
    da = sum of w t over corners; dz = a (da - sum of a da over places);
    dw = a t + dz s / sqrt(H); dq, dk and dv are sums of rows with the weights dz w / sqrt(H), a w.
    """

    @staticmethod
    def forward(
        ctx: Any, q_RH: Tensor, k_TH: Tensor, v_TH: Tensor, corner_RPc: Tensor, weight_RPc: Tensor
    ) -> Tensor:
        dot_RPc = _dots(q_RH, k_TH, corner_RPc)
        share_RPc = _shares(dot_RPc, weight_RPc, q_RH.shape[1]) * weight_RPc
        ctx.save_for_backward(q_RH, k_TH, v_TH, corner_RPc, weight_RPc, dot_RPc)
        return _sums(v_TH, corner_RPc, share_RPc)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_RH: Tensor) -> tuple[Tensor, Tensor, Tensor, None, Tensor]:
        q_RH, k_TH, v_TH, corner_RPc, weight_RPc, dot_RPc = ctx.saved_tensors
        g_RH = g_RH.contiguous()
        share_RP1 = _shares(dot_RPc, weight_RPc, q_RH.shape[1])
        scale = q_RH.shape[1] ** -0.5
        t_RPc = _dots(g_RH, v_TH, corner_RPc)
        da_RP1 = (weight_RPc * t_RPc).sum(-1, keepdim=True)
        dz_RP1 = share_RP1 * (da_RP1 - (share_RP1 * da_RP1).sum(1, keepdim=True)) * scale
        dweight_RPc = share_RP1 * t_RPc + dz_RP1 * dot_RPc
        ds_RPc = dz_RP1 * weight_RPc
        back = _Back(corner_RPc, len(k_TH))
        dk_TH = back.sums(q_RH, ds_RPc)
        dv_TH = back.sums(g_RH, share_RP1 * weight_RPc)
        return _sums(k_TH, corner_RPc, ds_RPc), dk_TH, dv_TH, None, dweight_RPc


def _shares(dot_RPc: Tensor, weight_RPc: Tensor, width: int) -> Tensor:
    score_RP1 = (dot_RPc * weight_RPc).sum(-1, keepdim=True) * width**-0.5
    return score_RP1.softmax(1)


def _dots(a_RH: Tensor, table_TH: Tensor, corner_RPc: Tensor) -> Tensor:
    """Return the dot product of each row with each of its corners' rows (R, P, 4)."""
    count, many = len(a_RH), corner_RPc[0].numel()
    number_R = torch.arange(count, dtype=corner_RPc.dtype, device=a_RH.device)
    # Torch's own name for it is what it is in the backward of F.embedding_bag.
    found = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        a_RH, table_TH, corner_RPc.flatten(), number_R * many,
        number_R.repeat_interleave(many), 0,
    )  # fmt: skip
    return found.view_as(corner_RPc)


def _sums(table_TH: Tensor, corner_RPc: Tensor, weight_RPc: Tensor) -> Tensor:
    """Return the weighted sum of each query's corners' rows (R, H)."""
    return F.embedding_bag(
        corner_RPc.flatten(1), table_TH, mode="sum", per_sample_weights=weight_RPc.flatten(1)
    )


class _Back:
    """From corners back to tokens: which queries have a token as a corner, in order of tokens."""

    def __init__(self, corner_RPc: Tensor, tokens: int) -> None:
        sorted_, self._entry = corner_RPc.flatten().sort(stable=True)
        edges = torch.arange(tokens + 1, dtype=sorted_.dtype, device=sorted_.device)
        self._first = torch.searchsorted(sorted_, edges, out_int32=True)
        self._row = (self._entry // corner_RPc[0].numel()).int()

    def sums(self, rows_RH: Tensor, weight_RPc: Tensor) -> Tensor:
        """Return the weighted sum of the rows of all queries that have a token as corner (T, H)."""
        return F.embedding_bag(
            self._row, rows_RH, self._first, mode="sum", include_last_offset=True,
            per_sample_weights=weight_RPc.flatten()[self._entry],
        )  # fmt: skip
