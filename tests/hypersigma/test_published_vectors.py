"""Against outputs of the published models; nothing here was computed by this project."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hypersigma.backbones.sizes import Size
from hypersigma.backbones.spatial import SpatialViT
from hypersigma.backbones.spectral import SpectralViT
from hypersigma.layers.positions import resample_positions
from hypersigma.layers.sampling_attention import SamplingAttention
from hypersigma.mae import MaeConfig, SpatialMae, SpectralMae, spatial_mae, spectral_mae

SMALL = Size(dim=24, depth=6, heads=3, interval=3, levels=(1, 2, 4, 5))
SMALL_MAE = replace(SMALL, depth=3, decoder_dim=16, decoder_depth=2, decoder_heads=2)
COMPAT = MaeConfig(compat=True)
MAES = {"spat": spatial_mae, "spec": spectral_mae}
SIZE_NAMES = {"b": "base", "l": "large", "h": "huge"}


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("stem", "dim", "heads", "points", "grid"),
    [
        ("ssa_spatial_5x7_h3_p4", 24, 3, 4, (5, 7)),
        ("ssa_spectral_16tok_h3_p8", 24, 3, 8, (4, 4)),
        ("ssa_dim23_heads4", 23, 4, 4, (6, 6)),
    ],
)
def test_sampling_attention(vectors, stem, dim, heads, points, grid):
    arrays, state = vectors(stem)
    attention = SamplingAttention(dim, heads, points)
    attention.load_state_dict(state)
    close(attention(arrays["x"], grid), arrays["y"])


@torch.no_grad()
def test_spatial_encoder(vectors):
    arrays, state = vectors("spat_encoder_tiny")
    model = SpatialViT(SMALL, in_chans=5, img_size=16, patch_size=4, ssa=True, compat=True).eval()
    model.load_state_dict(state)
    maps = [f.tokens.transpose(1, 2).unflatten(2, f.grid) for f in model.pyramid(arrays["x"])]
    close(maps[0], arrays["f1_fpn1"])
    close(maps[1], arrays["f2_fpn2"])
    close(F.max_pool2d(maps[2], 2), arrays["f3_fpn3"])
    close(F.max_pool2d(maps[3], 4), arrays["f4_fpn4"])


@torch.no_grad()
def test_spectral_encoder(vectors):
    arrays, state = vectors("spec_encoder_tiny")
    size = replace(SMALL, levels=(2, 5))
    model = SpectralViT(size, num_tokens=16, img_size=6, ssa=True, compat=True).eval()
    unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected.missing_keys
    first, last = model.pyramid(arrays["x"])
    close(first.tokens @ state["l1.weight"].T, arrays["f0_after_l1"])
    close(last.tokens, arrays["f1_raw"])


def test_position_resampling(vectors):
    arrays, _ = vectors("pos_interp")
    close(resample_positions(arrays["spat_in"], (8, 8), (16, 16)), arrays["spat_out"])
    # The published spectral encoders take the first band for a class token and drop it.
    rest = arrays["spec_in"][:, 1:]
    close(resample_positions(rest, (99, 1), (64, 1)), arrays["spec_out"])


@pytest.mark.parametrize(
    ("stem", "model"),
    [
        (
            "mae_spat_tiny",
            SpatialMae(SMALL_MAE, bands=6, image_size=16, patch_size=4, config=COMPAT),
        ),
        (
            "mae_spec_tiny",
            SpectralMae(SMALL_MAE, bands=9, image_size=8, config=COMPAT),
        ),
    ],
)
@torch.no_grad()
def test_small_masked_autoencoders(vectors, stem, model):
    arrays, state = vectors(stem)
    torch.testing.assert_close(model.decoder_pos_embed.data, state["decoder_pos_embed"])
    model.load_state_dict(state)
    out = model.eval()(arrays["x"], noise=arrays["noise"])
    assert torch.equal(out.mask.float(), arrays["mask"])
    assert torch.equal(out.target, arrays["target"])
    close(out.prediction, arrays["pred"])
    close(out.loss, arrays["loss"])


@pytest.mark.parametrize("letter", "blh")
@pytest.mark.parametrize("kind", MAES)
def test_names_and_shapes_of_a_state_dict(conformance, kind, letter):
    with torch.device("meta"):
        model = MAES[kind](SIZE_NAMES[letter])
    lines = (conformance / "keys" / f"mae_{kind}_{letter}.txt").read_text().splitlines()
    assert {f"{k} {tuple(v.shape)}" for k, v in model.state_dict().items()} == set(lines)
