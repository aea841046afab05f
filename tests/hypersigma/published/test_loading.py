import pytest
import torch

from hypersigma import published
from hypersigma.mae import spatial_mae, spectral_mae

TINY = {"size": "tiny", "in_chans": 6, "img_size": 9, "num_classes": 3, "num_tokens": 16}


@pytest.fixture
def weights():
    return published.build("cls_ss_base", **TINY).state_dict()


def names(lines):
    return [line.split(": ")[0] for line in lines]


def named(report):
    lists = (report.loaded, report.resized, report.ignored, report.missing)
    return [name for lines in lists for name in names(lines)]


def test_a_model_comes_back_with_its_weights(weights):
    model, report = published.load("cls_ss_base", weights, **TINY)
    assert not model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert sorted(named(report)) == sorted(weights)
    assert not report.resized
    assert not report.missing
    assert "spat_encoder.blocks.0.attn.sampling_offsets.bias" in report.loaded
    assert "conv.weight: known unused, no output depends on it" in report.ignored
    assert "spec_encoder.blocks.1.mlp.fc1.weight" in names(report.ignored)
    assert "spec_encoder.norm.bias" in names(report.ignored)


def test_a_model_does_not_share_memory_with_what_was_loaded(weights):
    before = weights["DR1.weight"].clone()
    model, _ = published.load("cls_ss_base", weights, **TINY)
    with torch.no_grad():
        model.DR1.weight.zero_()
    assert torch.equal(weights["DR1.weight"], before)


def test_a_checkpoint_around_the_weights_is_unwrapped(weights):
    checkpoint = {"model": {f"module.{key}": value for key, value in weights.items()}, "epoch": 3}
    model, report = published.load("cls_ss_base", checkpoint, **TINY)
    assert torch.equal(model.DR1.weight, weights["DR1.weight"])
    assert not report.missing


def test_another_shape_is_resized_or_missing_in_words(weights):
    other = {**TINY, "in_chans": 4, "img_size": 12, "num_classes": 5, "num_tokens": 25}
    model, report = published.load("cls_ss_base", weights, **other)
    assert model(torch.rand(2, 4, 12, 12)).isfinite().all()
    assert "spat_encoder.patch_embed.proj.weight: (64, 6, 2, 2) -> (64, 4, 2, 2)" in report.resized
    assert "spat_encoder.pos_embed: (1, 16, 64) -> (1, 36, 64)" in report.resized
    assert "spec_encoder.pos_embed: (1, 16, 64) -> (1, 25, 64)" in report.resized
    assert "spec_encoder.spat_map.weight: (64, 81) -> (64, 144)" in report.resized
    assert len(report.resized) == 4
    line = "classifier.4.weight: expected (5, 128), got (3, 128); stays as constructed"
    assert line in report.missing
    assert "fc_spec1.0.weight" in names(report.missing)
    assert sorted(named(report)) == sorted(weights)


def test_the_positions_of_bands_are_resized_along_a_line(weights):
    key = "spec_encoder.pos_embed"
    ramp = torch.linspace(0, 1, 16)[None, :, None].expand(1, 16, 64)
    model, _ = published.load("cls_ss_base", {**weights, key: ramp}, **{**TINY, "num_tokens": 36})
    values = model.spec_encoder.pos_embed.detach()[0, :, 0]
    assert (values.diff() > 0).all()


def test_encoders_of_masked_autoencoders_go_into_a_fused_model():
    spat = spatial_mae("tiny", bands=10, image_size=16, patch_size=4).state_dict()
    spec = spectral_mae("tiny", bands=16, image_size=16).state_dict()
    weights = {f"spat_encoder.{key}": value for key, value in spat.items()}
    weights |= {f"spec_encoder.{key}": value for key, value in spec.items()}
    model, report = published.load("cls_ss_base", weights, **TINY)
    key = "blocks.1.attn.qkv.weight"
    assert torch.equal(model.spat_encoder.get_parameter(key), spat[key])
    assert "spec_encoder.decoder_pred.weight: belongs to the decoder" in report.ignored
    assert len(report.resized) == 2
    missing = names(report.missing)
    assert "spat_encoder.blocks.0.attn.sampling_offsets.weight" in missing
    assert "classifier.0.weight: not among the weights; stays as constructed" in report.missing
    own = set(model.state_dict())
    assert sorted(named(report)) == sorted(own | set(weights))
    # What is missing is drawn, not left as memory was found.
    assert model.classifier[0].weight.std() > 0.01
    assert not model.conv.weight.any()


def test_a_key_that_nobody_knows_is_named(weights):
    _, report = published.load("cls_ss_base", weights | {"extra": torch.zeros(1)}, **TINY)
    assert "extra: not in this model" in report.ignored


def test_half_precision_weights_are_loaded_and_resized(weights):
    half = {key: value.bfloat16() for key, value in weights.items()}
    model, _ = published.load("cls_ss_base", half, **{**TINY, "img_size": 11})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_weights_of_another_model_or_size_are_refused(weights):
    mae = spatial_mae("tiny", bands=6, image_size=9, patch_size=3).state_dict()
    with pytest.raises(ValueError, match="whose names need `spat_encoder"):
        published.load("cls_ss_base", mae, **TINY)
    wide = weights | {"spat_encoder.blocks.0.norm1.weight": torch.ones(768)}
    with pytest.raises(ValueError, match=r"expected \(64,\), got \(768,\); .*another size"):
        published.load("cls_ss_base", wide, **TINY)
    with pytest.raises(ValueError, match="expected tensors by name"):
        published.load("cls_ss_base", {"epoch": 3}, **TINY)
