import pytest
import torch

from hypersigma.backbones import BACKBONES
from hypersigma.backbones.loading import load_encoder
from hypersigma.backbones.spatial import spatial
from hypersigma.backbones.spectral import spectral
from hypersigma.layers.sampling_attention import SamplingAttention
from hypersigma.mae import spatial_mae, spectral_mae

WAVELENGTH = torch.linspace(420, 2400, 20).expand(2, -1)


def smooth(batch: int, bands: int, side: int) -> torch.Tensor:
    coarse = torch.randn(batch, bands, 3, 3)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")


@pytest.mark.parametrize(
    ("kind", "options", "grid", "unused"),
    [
        ("spatial", {"in_chans": 20, "patch_size": 4}, (3, 3), set()),
        ("spectral", {"num_tokens": 20}, (20, 1), {"pos_embed"}),
    ],
)
@pytest.mark.parametrize("ssa", [False, True])
def test_shapes_and_a_gradient_in_every_trained_parameter(kind, options, grid, unused, ssa):
    model = BACKBONES[kind]("tiny", img_size=12, ssa=ssa, **options)
    features = model(torch.randn(2, 20, 12, 12), WAVELENGTH)
    assert features.tokens.shape == (2, grid[0] * grid[1], 64)
    assert features.grid == grid
    features.tokens.square().mul(torch.randn(64)).sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} == unused
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == unused
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("size", "full"),
    [("base", [2, 5, 8, 11]), ("large", [5, 11, 17, 23]), ("huge", [7, 15, 23, 31])],
)
def test_full_attention_is_where_published(size, full):
    with torch.device("meta"):
        models = spatial(size, ssa=True), spectral(size, ssa=True)
    for model in models:
        kinds = [isinstance(block.attn, SamplingAttention) for block in model.blocks]
        assert [i for i, sampled in enumerate(kinds) if not sampled] == full


def test_pyramid_ends_with_what_forward_returns():
    model = spatial("tiny", in_chans=3, img_size=8, patch_size=4).eval()
    x = torch.randn(1, 3, 8, 8)
    levels = model.pyramid(x)
    assert len(levels) == 4
    assert torch.equal(levels[-1].tokens, model(x).tokens)


def test_another_tile_size_resamples_the_positions():
    model = spatial("tiny", in_chans=3, img_size=16, patch_size=4)
    assert model(torch.randn(1, 3, 20, 12)).grid == (5, 3)
    with pytest.raises(ValueError, match="whole 4 px patches, got 18 x 16"):
        model(torch.randn(1, 3, 18, 16))


def test_the_spectral_encoder_says_what_it_needs():
    model = spectral("tiny", num_tokens=20, img_size=8)
    with pytest.raises(ValueError, match="needs wavelength_BC"):
        model(torch.randn(2, 20, 8, 8))
    with pytest.raises(ValueError, match="square number with ssa, got 20"):
        spectral("tiny", num_tokens=20, img_size=8, ssa=True, compat=True)


@torch.no_grad()
def test_a_pretrained_encoder_sees_what_its_autoencoder_saw():
    """With nothing hidden, encoder and autoencoder have the same tokens before the decoder."""
    x = torch.randn(2, 20, 16, 16)
    pairs = [
        (
            spatial_mae("tiny", bands=20, image_size=16, patch_size=4),
            spatial("tiny", in_chans=20, img_size=16, patch_size=4),
        ),
        (
            spectral_mae("tiny", bands=20, image_size=16),
            spectral("tiny", num_tokens=20, img_size=16),
        ),
    ]
    for mae, encoder in pairs:
        report = load_encoder(encoder, mae.state_dict())
        assert not report.resized
        mae.keep = mae.pos_embed.shape[1]
        seen = []
        mae.norm.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out))
        noise = torch.arange(float(mae.keep)).expand(2, -1)
        mae(x, WAVELENGTH, noise=noise)
        torch.testing.assert_close(encoder(x, WAVELENGTH).tokens, seen[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_spatial_encoder_of_another_shape_answers_alike():
    """Twice the pixels over the same ground and half the bands, all smooth: tokens stay near."""
    state = spatial_mae("tiny", bands=20, image_size=16, patch_size=4).state_dict()
    kernel = smooth(64, 20, 4).cumsum(1) * 0.02
    state["patch_embed.proj.weight"] = kernel
    same = spatial("tiny", in_chans=20, img_size=16, patch_size=4)
    other = spatial("tiny", in_chans=10, img_size=32, patch_size=8)
    load_encoder(same, state)
    report = load_encoder(other, state)
    assert report.resized == ("patch_embed.proj.weight: (64, 20, 4, 4) -> (64, 10, 8, 8)",)
    x = smooth(2, 5, 16).repeat_interleave(4, 1)
    fine = torch.nn.functional.interpolate(x[:, ::2], (32, 32), mode="bilinear")
    a, b = same.patch_embed(x)[0], other.patch_embed(fine)[0]
    assert (a - b).abs().max() < 0.15 * a.abs().max()


def test_the_report_names_every_key():
    state = spatial_mae("tiny", bands=20, image_size=16, patch_size=4).state_dict()
    model = spatial("tiny", in_chans=20, img_size=12, patch_size=4, ssa=True)
    report = load_encoder(model, state | {"extra": torch.zeros(1)})
    assert report.resized == ("pos_embed: (1, 16, 64) -> (1, 9, 64)",)
    assert "mask_token: belongs to the decoder" in report.ignored
    assert "extra: not in this encoder" in report.ignored
    assert len(report.missing) == 4
    assert all("sampling_offsets" in line for line in report.missing)
    named = [*report.loaded, *(line.split(":")[0] for line in report.resized + report.ignored)]
    assert sorted(named) == sorted([*state, "extra"])
    assert "resized: pos_embed: (1, 16, 64) -> (1, 9, 64)" in str(report)


def test_the_spectral_map_is_resized_and_unused_positions_ignored():
    state = spectral_mae("tiny", bands=20, image_size=16).state_dict()
    report = load_encoder(spectral("tiny", num_tokens=48, img_size=9), state)
    assert report.resized == ("spat_map.weight: (64, 256) -> (64, 81)",)
    assert "pos_embed: positions come from the wavelength" in report.ignored
    assert report.missing == ("pos_embed: not used, positions come from the wavelength",)


def test_weights_of_another_encoder_are_refused():
    model = spatial("tiny", in_chans=20, img_size=16, patch_size=4)
    with pytest.raises(ValueError, match="expected the weights of a SpatialViT"):
        load_encoder(model, spectral_mae("tiny", bands=20, image_size=16).state_dict())
    wide = model.state_dict() | {"blocks.0.norm1.weight": torch.ones(768)}
    with pytest.raises(ValueError, match=r"expected \(64,\), got \(768,\); .*another size"):
        load_encoder(model, wide)
