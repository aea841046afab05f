"""Sampling attention and a pretraining step, each beside its straightforward form.

The straightforward forms are those of the published code, written here from its description: two
`grid_sample` calls on maps of each head, attention as two products and a softmax, every token
embedded before most are hidden, every token predicted, AdamW as torch has it by default. Both use
the same weights and the same batch; rounds take turns. FLOP are those of the matrix products.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hypersigma.layers.attention import Attention
from hypersigma.layers.block import Block
from hypersigma.layers.sampled import attend_by_corners
from hypersigma.layers.sampling_attention import SamplingAttention, attend_by_samples
from hypersigma.mae import Mae, SpatialMae, spatial_mae, spectral_mae
from hypersigma.optim import OptimConfig, adamw

ROUNDS = 11
DIM, HEADS, POINTS, GRID, BATCH = 768, 12, 8, (32, 32), 4
MAE_BATCH, BANDS, SIDE = 8, 100, 64


def main() -> int:
    """Measure all and print them."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    attention()
    for kind in ("spatial", "spectral"):
        pretraining(kind)
    return 0


def attention() -> None:
    """Print time, memory and gradients of sampling attention."""
    model, x, upstream = _attention_inputs()
    forms = {"plain": plain_sampling, "ours": lambda m, t: m(t, GRID)}

    def run(form: Callable[[SamplingAttention, Tensor], Tensor]) -> list[Tensor]:
        x.grad = None
        model.zero_grad()
        form(model, x).backward(upstream)
        return [t.grad for t in (x, *model.parameters()) if t.grad is not None]

    seconds = _in_turn({name: lambda form=form: run(form) for name, form in forms.items()})
    peaks = {name: _child(name) for name in forms}
    print(
        f"sampling attention ({DIM} wide, {HEADS} heads, {POINTS} points, {GRID[0]}x{GRID[1]} "
        f"tokens, batch {BATCH}), forward and backward: {_told(seconds)}; peak memory "
        f"{peaks['ours']:.0f} / {peaks['plain']:.0f} MB = {peaks['ours'] / peaks['plain']:.0%}; "
        f"gradients within {_gradients_apart():.1e}"
    )


def _gradients_apart() -> float:
    """Return the largest relative difference of a gradient, in float64.

    In float32 some places fall on other sides of a token's centre, where the slope changes.
    """
    model, x, _ = _attention_inputs()
    model, x = model.double(), x.detach()[:1].double()
    length, inner = x.shape[1], model.proj.in_features
    q, k, v = model.qkv(x).detach().chunk(3, -1)
    heads = [t.unflatten(-1, (HEADS, inner // HEADS)).transpose(1, 2) for t in (q, k, v)]
    places = [t.detach() for t in model._places(q, GRID)]
    inputs = [t.double().contiguous().requires_grad_() for t in (*heads, *places)]
    upstream = torch.randn(1, HEADS, length, inner // HEADS, dtype=torch.float64)
    ours, plain = (
        torch.autograd.grad(form(*inputs, GRID), inputs, upstream)
        for form in (attend_by_corners, attend_by_samples)
    )
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, plain, strict=True))


def pretraining(kind: str) -> None:
    """Print the time of a training step of one kind, and its FLOP rate beside that of mm."""
    make = spatial_mae if kind == "spatial" else spectral_mae
    x = torch.randn(MAE_BATCH, BANDS, SIDE, SIDE)
    wavelength = torch.linspace(400, 2500, BANDS).expand(MAE_BATCH, -1)
    torch.manual_seed(0)
    ours, plain = make("base").train(), make("base", compat=True).train()
    trained = [p for p in plain.parameters() if p.requires_grad]
    optimizers = {
        "ours": adamw(ours, OptimConfig()),
        "plain": torch.optim.AdamW(trained, lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05),
    }

    losses: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: ours(x, wavelength, hidden_only=True).loss,
        "plain": lambda: plain_mae(plain, x),
    }

    def step(name: str) -> None:
        optimizers[name].zero_grad()
        losses[name]().backward()
        optimizers[name].step()

    seconds = _in_turn({name: lambda name=name: step(name) for name in optimizers})
    with FlopCounterMode(display=False) as counter:
        ours(x, wavelength, hidden_only=True).loss.backward()
    rate = counter.get_total_flops() / median(seconds["ours"]) / 1e9
    roof = _mm_rate(ours)
    print(
        f"{kind} MAE-B, batch {MAE_BATCH}, training step: {_told(seconds)}; "
        f"{rate:.0f} GFLOP/s, plain torch.mm at its shapes {roof:.0f}: {rate / roof:.0%}"
    )


def plain_sampling(model: SamplingAttention, x: Tensor) -> Tensor:
    """Attend to samples of keys and values that are written out, as published."""
    (h, w), (batch, length, _) = GRID, x.shape
    heads, points = model.num_heads, model.num_points
    q, k, v = model.qkv(x).chunk(3, -1)
    offsets = model.sampling_offsets(q).reshape(batch, length, heads, points, 2)
    y, x_ = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    reference = torch.stack((x_.flatten(), y.flatten()), -1)[None, None, :, None]
    places = reference + offsets.permute(0, 2, 1, 3, 4) / torch.tensor([w, h])
    grid = (2 * places - 1).reshape(batch * heads, length, points, 2)

    def sampled(t: Tensor) -> Tensor:
        maps = t.reshape(batch, length, heads, -1).permute(0, 2, 3, 1)
        found = F.grid_sample(maps.reshape(batch * heads, -1, h, w), grid, align_corners=False)
        return found.reshape(batch, heads, -1, length, points).permute(0, 1, 3, 4, 2)

    keys, values = sampled(k), sampled(v)
    queries = q.reshape(batch, length, heads, -1).permute(0, 2, 1, 3)[:, :, :, None]
    share = ((queries * keys).sum(-1) * keys.shape[-1] ** -0.5).softmax(-1)
    mixed: Tensor = (share[..., None] * values).sum(3).permute(0, 2, 1, 3)
    out: Tensor = model.proj(mixed.reshape(batch, length, -1))
    return out


def plain_mae(model: Mae, x: Tensor) -> Tensor:
    """Return the loss, as published."""
    if isinstance(model, SpatialMae):
        tokens = model.patch_embed.proj(x).flatten(2).transpose(1, 2)
    else:
        pooled = F.adaptive_avg_pool1d(x.flatten(2).transpose(1, 2), BANDS)
        tokens = model.spat_map(pooled.transpose(1, 2))  # type: ignore[operator]
    batch, length, width = tokens.shape
    ids = torch.rand(batch, length).argsort(1)
    restore, keep = ids.argsort(1), ids[:, : model.keep]
    mask = torch.ones(batch, length)
    mask[:, : model.keep] = 0
    mask = mask.gather(1, restore)
    visible = tokens.gather(1, keep[..., None].expand(-1, -1, width))
    for block in model.blocks:
        visible = _plain_block(block, visible)
    visible = model.decoder_embed(model.norm(visible))
    blank = model.mask_token.repeat(batch, length - model.keep, 1)
    places = restore[..., None].expand(-1, -1, visible.shape[2])
    hidden = torch.cat((visible, blank), 1).gather(1, places) + model.decoder_pos_embed
    for block in model.decoder_blocks:
        hidden = _plain_block(block, hidden)
    prediction = model.decoder_pred(model.decoder_norm(hidden))
    loss: Tensor = (((prediction - model.patchify(x)) ** 2).mean(-1) * mask).sum() / mask.sum()
    return loss


def _plain_block(block: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(block, Block)
    assert isinstance(block.attn, Attention)
    x = x + block.drop_path(_plain_attention(block.attn, block.norm1(x)))
    out: Tensor = x + block.drop_path(block.mlp(block.norm2(x)))
    return out


def _plain_attention(attention: Attention, x: Tensor) -> Tensor:
    batch, length, _ = x.shape
    qkv = attention.qkv(x).reshape(batch, length, 3, attention.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    share = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
    out: Tensor = attention.proj((share @ v).transpose(1, 2).reshape(batch, length, -1))
    return out


def _mm_rate(model: Mae) -> float:
    """Return the rate [GFLOP/s] of torch.mm over the shapes of a step of the model's layers."""
    shapes: list[tuple[int, int, int]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        rows = inputs[0].numel() // module.in_features
        shapes.append((rows, module.in_features, module.out_features))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Linear)]
    x = torch.randn(MAE_BATCH, BANDS, SIDE, SIDE)
    wavelength = torch.linspace(400, 2500, BANDS).expand(MAE_BATCH, -1)
    with torch.no_grad():
        model(x, wavelength, hidden_only=True)
    for hook in hooks:
        hook.remove()
    flop = seconds = 0.0
    for rows, wide, out in set(shapes):
        count = shapes.count((rows, wide, out))
        for a, b, c in ((rows, wide, out), (rows, out, wide), (out, rows, wide)):
            left, right = torch.randn(a, b), torch.randn(b, c)
            each = [0.0] * 5
            for number in range(len(each)):
                began = time.perf_counter()
                torch.mm(left, right)
                each[number] = time.perf_counter() - began
            seconds += count * median(each)
            flop += count * 2 * a * b * c
    return flop / seconds / 1e9


def _attention_inputs() -> tuple[SamplingAttention, Tensor, Tensor]:
    torch.manual_seed(0)
    model = SamplingAttention(DIM, HEADS, POINTS)
    nn.init.normal_(model.sampling_offsets.weight, std=0.02)
    length = GRID[0] * GRID[1]
    x = torch.randn(BATCH, length, DIM, requires_grad=True)
    return model, x, torch.randn(BATCH, length, DIM)


def peak(name: str) -> None:
    """Print how much a forward and backward adds to this process's peak memory [MB]."""
    model, x, upstream = _attention_inputs()
    form = plain_sampling if name == "plain" else lambda m, t: m(t, GRID)
    before = _high_water()
    form(model, x).backward(upstream)
    print(json.dumps(_high_water() - before))


def _high_water() -> float:
    with open("/proc/self/status", encoding="utf-8") as status:
        return int(status.read().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def _child(name: str) -> float:
    command = [sys.executable, "-m", "benchmarks.models", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: float = json.loads(done.stdout)
    return found


def _in_turn(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _told(seconds: dict[str, list[float]]) -> str:
    ours, plain = median(seconds["ours"]), median(seconds["plain"])
    return f"{ours * 1000:.0f} ms, straightforward {plain * 1000:.0f} ms = {plain / ours:.2f}x"


if __name__ == "__main__":
    peak(sys.argv[1])
