"""What holds for encoders and autoencoders alike: any tile size, checkpointing, compile, bf16."""

import pytest
import torch
import torch.nn.functional as F

from hypersigma.backbones.loading import load_encoder
from hypersigma.backbones.sizes import Size
from hypersigma.backbones.spatial import SpatialViT, spatial
from hypersigma.backbones.spectral import SpectralViT, spectral
from hypersigma.layers.sampling_attention import SamplingAttention
from hypersigma.mae import Mae, MaeConfig, SpatialMae, SpectralMae

BANDS, SIDE = 12, 16
WAVELENGTH = torch.linspace(420, 2400, BANDS).expand(2, -1)
SMALL = Size(
    dim=16, depth=2, heads=2, interval=2, levels=(0, 1), decoder_dim=16, decoder_depth=1,
    decoder_heads=2, drop_path=0.0,
)  # fmt: skip


def encoder(kind, ssa=False, **options):
    if kind == "spatial":
        options |= {"in_chans": BANDS, "patch_size": 4}
        return SpatialViT(SMALL, img_size=SIDE, ssa=ssa, **options)
    return SpectralViT(SMALL, num_tokens=BANDS, img_size=SIDE, ssa=ssa, **options)


def autoencoder(kind, **options):
    options = {"config": MaeConfig(0.5, **options), "bands": BANDS, "image_size": SIDE}
    if kind == "spatial":
        return SpatialMae(SMALL, patch_size=4, **options)
    return SpectralMae(SMALL, **options)


def output(model, x):
    """Return tokens, or prediction, of one of the models below; masks are always the same."""
    if isinstance(getattr(model, "_orig_mod", model), Mae):
        noise = torch.rand(2, model.pos_embed.shape[1], generator=torch.Generator().manual_seed(0))
        return model(x, WAVELENGTH, noise=noise).prediction
    return model(x, WAVELENGTH).tokens


MODELS = {
    "spatial": lambda **o: encoder("spatial", **o),
    "spatial ssa": lambda **o: encoder("spatial", ssa=True, **o),
    "spectral": lambda **o: encoder("spectral", **o),
    "spectral ssa": lambda **o: encoder("spectral", ssa=True, **o),
    "spatial mae": lambda **o: autoencoder("spatial", **o),
    "spectral mae": lambda **o: autoencoder("spectral", **o),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


@every_model
def test_compiles_whole(make):
    model, x = make(), torch.randn(2, BANDS, SIDE, SIDE)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    got = output(compiled, x)
    torch.testing.assert_close(got, output(model, x))
    got.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@every_model
def test_checkpointing_of_activations_changes_no_gradient(make):
    plain, saving = make(), make(recompute=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, BANDS, SIDE, SIDE)
    kept = {}
    for model in (plain, saving):
        total = kept[model] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, total=total: (total.append(t.numel()), t)[1], lambda t: t
        ):
            out = output(model, x)
        out.square().sum().backward()
    torch.testing.assert_close(output(saving, x), output(plain, x), atol=0, rtol=0)
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=0, rtol=0)
    assert sum(kept[saving]) < 0.5 * sum(kept[plain])


@every_model
def test_half_precision_is_finite_and_near(make):
    model, x = make(), torch.randn(2, BANDS, SIDE, SIDE)
    full = output(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = output(model, x)
    half.float().square().sum().backward()
    assert (half.float() - full).abs().max() < 0.05 * full.abs().max()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("side", [32, 48, 64, 96, 33])
def test_the_spectral_encoder_answers_alike_to_the_same_picture_of_another_size(side):
    model = spectral("tiny", num_tokens=BANDS, img_size=64).eval()
    coarse = torch.randn(2, BANDS, 4, 4)
    seen, other = (F.interpolate(coarse, (n, n), mode="bicubic") for n in (64, side))
    expected, got = model(seen, WAVELENGTH).tokens, model(other, WAVELENGTH).tokens
    assert (got - expected).std() < 0.05 * expected.std()
    sized = spectral("tiny", num_tokens=BANDS, img_size=side).eval()
    load_encoder(sized, model.state_dict())
    torch.testing.assert_close(sized(other, WAVELENGTH).tokens, got, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("side", "patch"), [(32, 8), (48, 8), (64, 8), (96, 8), (33, 3), (33, 11)])
@pytest.mark.parametrize("ssa", [False, True])
def test_the_spatial_encoder_takes_any_size_of_whole_patches(side, patch, ssa):
    model = spatial("tiny", in_chans=3, img_size=8 * patch, patch_size=patch, ssa=ssa)
    features = model(torch.randn(1, 3, side, side))
    assert features.grid == (side // patch, side // patch)
    assert features.tokens.shape[1] == (side // patch) ** 2
    features.tokens.square().sum().backward()
    assert model.pos_embed.grad.abs().sum() > 0


@pytest.mark.parametrize("side", [48, 33])
def test_a_gradient_reaches_the_map_through_another_size(side):
    model = encoder("spectral")
    x = torch.randn(2, BANDS, side, side - 1)
    model(x, WAVELENGTH).tokens.mul(torch.randn(16)).sum().backward()
    assert model.spat_map.weight.grad.abs().sum() > 0
    model(torch.randn(2, BANDS, SIDE, SIDE), WAVELENGTH)


def test_sampling_attention_is_in_the_blocks_that_are_named():
    for ssa, sampled in [
        (False, []), (True, [0]), ((1,), [1]), ([0, 1], [0, 1]), ([], []),
    ]:  # fmt: skip
        for kind in ("spatial", "spectral"):
            blocks = encoder(kind, ssa=ssa).blocks
            kinds = [isinstance(block.attn, SamplingAttention) for block in blocks]
            assert [i for i, found in enumerate(kinds) if found] == sampled
    with pytest.raises(ValueError, match=r"expected blocks in 0\.\.1, got \[2\]"):
        encoder("spatial", ssa=[2])
