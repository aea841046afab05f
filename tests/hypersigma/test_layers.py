import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hypersigma.layers.attention import Attention
from hypersigma.layers.block import Block, block_stack
from hypersigma.layers.patch_embed import PatchEmbed, patchify
from hypersigma.layers.positions import (
    resample_bands,
    resample_positions,
    resize_kernel,
    sincos_2d,
    sincos_wavelength,
)
from hypersigma.layers.sampled import attend_by_corners
from hypersigma.layers.sampling_attention import SamplingAttention, attend_by_samples


def numpy_attention(attention: Attention, x: np.ndarray) -> np.ndarray:
    """Softmax attention of one sample, head by head, in float64."""
    qkv = x @ attention.qkv.weight.double().numpy().T + attention.qkv.bias.double().numpy()
    q, k, v = np.split(qkv, 3, axis=1)
    heads = []
    for columns in np.split(np.arange(q.shape[1]), attention.num_heads):
        score = np.exp(q[:, columns] @ k[:, columns].T / math.sqrt(len(columns)))
        heads.append(score / score.sum(1, keepdims=True) @ v[:, columns])
    out = np.concatenate(heads, axis=1)
    return out @ attention.proj.weight.double().numpy().T + attention.proj.bias.double().numpy()


@pytest.mark.parametrize(("dim", "heads"), [(8, 2), (11, 3)])
@torch.no_grad()
def test_attention_matches_numpy(dim, heads):
    attention, x = Attention(dim, heads), torch.randn(1, 5, dim)
    expected = numpy_attention(attention, x[0].double().numpy())
    np.testing.assert_allclose(attention(x)[0], expected, atol=1e-6)


def test_sampling_own_centre_only_returns_own_value():
    attention = SamplingAttention(8, 2, num_points=3)
    torch.nn.init.zeros_(attention.sampling_offsets.weight)
    torch.nn.init.zeros_(attention.sampling_offsets.bias)
    x = torch.randn(2, 12, 8)
    expected = attention.proj(attention.qkv(x)[..., 16:])
    torch.testing.assert_close(attention(x, (3, 4)), expected)


def test_sampling_one_token_to_the_right_reads_the_right_neighbour():
    attention = SamplingAttention(8, 2, num_points=1)
    torch.nn.init.zeros_(attention.sampling_offsets.weight)
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.0] * 2))
    x = torch.randn(1, 12, 8)
    value = attention.qkv(x)[..., 16:].unflatten(1, (3, 4))
    shifted = F.pad(value[:, :, 1:], (0, 0, 0, 1)).flatten(1, 2)
    torch.testing.assert_close(attention(x, (3, 4)), attention.proj(shifted))


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 2)])
def test_sampling_far_outside_is_finite_on_any_grid(grid):
    attention = SamplingAttention(8, 2)
    torch.nn.init.normal_(attention.sampling_offsets.weight, std=50)
    x = torch.randn(1, math.prod(grid), 8, requires_grad=True)
    attention(x, grid).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_sampling_refuses_another_grid():
    with pytest.raises(ValueError, match="expected 2 x 3 = 6 tokens, got 5"):
        SamplingAttention(8, 2)(torch.randn(1, 5, 8), (2, 3))


def test_sampling_in_half_precision_stays_near():
    attention, x = SamplingAttention(32, 4), torch.randn(2, 20, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = attention(x, (4, 5))
    torch.testing.assert_close(half.float(), attention(x, (4, 5)), atol=0.05, rtol=0)


def sampled_inputs(batch, heads, grid, width, points, *, spread, dtype=torch.float64):
    """Queries, keys, values and places of which some lie outside the grid, all with gradients."""
    tokens = math.prod(grid)
    heads_of = [torch.randn(batch, heads, tokens, width, dtype=dtype) for _ in range(3)]
    places = [
        (side - 1) / 2 + spread * side * torch.randn(batch, heads, tokens, points, dtype=dtype)
        for side in (grid[1], grid[0])
    ]
    return [t.requires_grad_() for t in (*heads_of, *places)]


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 2), (4, 4)])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_both_forms_of_sampling_agree_with_their_gradients(grid, spread):
    inputs = sampled_inputs(2, 3, grid, 5, 4, spread=spread)
    upstream = torch.randn(2, 3, math.prod(grid), 5, dtype=torch.float64)
    corners, samples = (form(*inputs, grid) for form in (attend_by_corners, attend_by_samples))
    torch.testing.assert_close(corners, samples)
    for got, expected in zip(
        torch.autograd.grad(corners, inputs, upstream),
        torch.autograd.grad(samples, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_gradients_of_sampling_are_those_of_differences():
    inputs = sampled_inputs(1, 2, (3, 4), 3, 2, spread=0.4)

    def attend(*tensors):
        return attend_by_corners(*tensors, (3, 4))

    assert torch.autograd.gradcheck(attend, inputs, eps=1e-7, fast_mode=True)


def test_a_place_that_is_no_number_shows_and_others_stay():
    inputs = [t.detach() for t in sampled_inputs(1, 1, (2, 3), 4, 2, spread=0.3)]
    expected = attend_by_corners(*inputs, (2, 3))
    inputs[3][0, 0, 1, 0] = math.nan
    found = attend_by_corners(*inputs, (2, 3))
    assert found[0, 0, 1].isnan().all()
    rest = [0, 2, 3, 4, 5]
    torch.testing.assert_close(found[0, 0, rest], expected[0, 0, rest])


@pytest.mark.parametrize("layer", [Attention, SamplingAttention])
def test_attention_compiles_whole(layer):
    attention, x = layer(8, 2), torch.randn(2, 12, 8)
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, (3, 4)), attention(x, (3, 4)))
    compiled(x, (3, 4)).sum().backward()
    assert all(p.grad is not None for p in attention.parameters())


def test_block_does_not_depend_on_token_order():
    block, x, order = Block(8, 2), torch.randn(2, 5, 8), torch.randperm(5)
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order])


def test_stack_starts_with_a_residual_stream_scaled_by_depth():
    blocks = block_stack(64, 4, drop_paths=[0.0] * 8, sampled=[True] + [False] * 7)
    assert isinstance(blocks[0].attn, SamplingAttention)
    for i, block in enumerate(blocks):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * (i + 1)), rel=0.1)
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_patches_are_ordered_row_column_band():
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    patches = patchify(x, 2)
    assert patches.shape == (2, 6, 12)
    # The patch in grid row 1, column 2 is number 5.
    np.testing.assert_array_equal(patches[1, 5], x[1, :, 2:4, 4:6].permute(1, 2, 0).flatten())


def test_embedding_patches_is_the_convolution():
    embed, x = PatchEmbed(3, 8, 4), torch.randn(2, 3, 8, 12)
    tokens, grid = embed(x)
    assert grid == (2, 3)
    torch.testing.assert_close(embed.embed(patchify(x, 4)), tokens, atol=1e-6, rtol=0)


def test_sincos_2d_by_hand():
    table = sincos_2d(8, (2, 3))[0].unflatten(0, (2, 3))
    # Row 1, column 2; rates 1 and 1/100.
    expected = [f(v * r) for v in (2, 1) for f in (math.sin, math.cos) for r in (1, 0.01)]
    np.testing.assert_allclose(table[1, 2], expected, atol=1e-7)
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_2d(6, (2, 2))


def test_wavelength_positions_by_hand_and_similar_for_neighbours():
    table = sincos_wavelength(torch.tensor([[500.0, 510.0, 1500.0]]), 4)[0]
    angles = [2 * math.pi * 500 / 20, 2 * math.pi * 500 / 10_000]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    np.testing.assert_allclose(table[0], expected, atol=1e-4)
    wide = sincos_wavelength(torch.tensor([[500.0, 510.0, 1500.0]]), 64)[0]
    assert (wide[0] - wide[1]).norm() < 0.6 * (wide[0] - wide[2]).norm()


def test_position_tables_keep_a_plane_when_resampled():
    # The bicubic kernel used is exact on a plane to about 1 %, away from the border.
    x = (torch.arange(8) + 0.5) / 8
    plane = (x[:, None] * 2 + x)[None].flatten(1)[..., None]
    fine = resample_positions(plane, (8, 8), (16, 16)).reshape(16, 16)
    y = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(
        fine[5:-5, 5:-5], (y[:, None] * 2 + y)[5:-5, 5:-5], atol=0.02, rtol=0
    )


@pytest.mark.parametrize("size", [(6, 6), (9, 9), (16, 16)])
def test_resized_kernels_answer_alike_to_the_same_picture(size):
    smooth = F.interpolate(torch.randn(1, 2, 2, 2), (64, 64), mode="bicubic")
    kernel = F.interpolate(torch.randn(4, 2, 2, 2), (64, 64), mode="bicubic")
    small = F.interpolate(smooth, size, mode="area")
    before = torch.einsum("oihw,bihw->bo", kernel, smooth)
    after = torch.einsum("oihw,bihw->bo", resize_kernel(kernel, size), small)
    assert (before - after).abs().max() < 0.1 * before.abs().max()


@pytest.mark.parametrize("bands", [1, 7, 48, 175])
def test_resampled_bands_answer_alike_to_a_flat_spectrum(bands):
    kernel = torch.randn(4, 100, 1, 1)
    out = resample_bands(kernel, bands)
    assert out.shape == (4, bands, 1, 1)
    if 100 % bands == 0 or bands % 100 == 0:
        torch.testing.assert_close(out.sum(1), kernel.sum(1))
    assert resample_bands(kernel, 100) is kernel


@pytest.mark.parametrize("samples", [1, 2, 7])
@pytest.mark.parametrize("sampled", [True, False])
def test_samples_that_skip_a_branch_are_not_run_and_nothing_else_changes(
    samples, sampled, monkeypatch
):
    (block,) = block_stack(8, 2, drop_paths=[0.5], sampled=[sampled]).double()
    x = torch.randn(samples, 4, 8, dtype=torch.float64, requires_grad=True)
    seen: list[int] = []
    block.attn.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))

    def run(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        out = block(x, (2, 2))
        return [out, *torch.autograd.grad(out.square().sum(), [x, *block.parameters()])]

    ours = [run(seed) for seed in range(12)]
    fewest = min(seen)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    seen.clear()
    for seed, found in enumerate(ours):
        for a, b in zip(found, run(seed), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert set(seen) == {samples}
    assert fewest < samples or samples == 1  # alone it is run, by 0, so that gradients are there
