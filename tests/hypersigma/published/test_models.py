"""Published models of the smallest size: what they take and return, and what is trained."""

import pytest
import torch

from hypersigma import published
from hypersigma.published.unused import unused_names

CASES = {
    "mae_spat_b": ({"in_chans": 6, "img_size": 16}, [(2, 6, 16, 16)], [(), (2, 4, 384), (2, 4)]),
    "mae_spec_b": ({"in_chans": 8, "img_size": 6}, [(2, 8, 6, 6)], [(), (2, 8, 36), (2, 8)]),
    "cls_spat_base": ({"in_chans": 6, "img_size": 9}, [(2, 6, 9, 9)], [(2, 17)]),
    "cls_ss_base": ({"in_chans": 6, "num_classes": 3}, [(2, 6, 33, 33)], [(2, 3)]),
    "seg_spat_base": ({"in_chans": 6}, [(2, 6, 33, 40)], [(2, 1320, 16)]),
    "seg_ss_base_ip": ({"in_chans": 6, "img_size": 37}, [(2, 6, 37, 37)], [(2, 1369, 16)]),
    "htd_sa": ({"in_chans": 6, "img_size": 8}, [(2, 6, 8, 8), (2, 6)], [(2, 8, 8)]),
    "htd_ss": ({"in_chans": 6, "img_size": 8}, [(2, 6, 8, 8), (2, 6)], [(2, 8, 8)]),
    "had_sa": ({"in_chans": 6, "img_size": 8}, [(2, 6, 8, 8)], [(2, 2, 8, 8)]),
    "had_ss": ({"in_chans": 6, "img_size": 8}, [(2, 6, 8, 8)], [(2, 2, 8, 8)]),
    "cd_farmland_sa": ({"in_chans": 6}, [(2, 6, 5, 5)] * 2, [(2, 2)]),
    "cd_farmland_ss": ({"in_chans": 6, "num_tokens": 16}, [(1, 6, 5, 5)] * 2, [(1, 2)]),
    "cd_bayarea_ss": ({"in_chans": 6, "num_tokens": 16}, [(2, 6, 15, 15)] * 2, [(2, 2)]),
    "um_sa": (
        {"in_chans": 6, "img_size": 12, "num_endmembers": 3},
        [(2, 6, 12, 12)],
        [(2, 3, 12, 12), (2, 6, 12, 12)],
    ),
    "um_ss": ({"in_chans": 6, "img_size": 12}, [(2, 6, 12, 12)], [(2, 4, 12, 12), (2, 6, 12, 12)]),
    "dn_spatsigma": ({"in_chans": 13, "img_size": 12}, [(2, 13, 12, 12)], [(2, 13, 12, 12)]),
    "dn_hypersigma": ({"in_chans": 13, "img_size": 12}, [(2, 13, 12, 12)], [(2, 13, 12, 12)]),
    "sr_spatsigma_x8": (
        {"in_chans": 13, "img_size": 6, "scale": 2},
        [(2, 13, 6, 6), (2, 13, 12, 12)],
        [(2, 13, 12, 12)],
    ),
    "sr_hypersigma_x4": (
        {"in_chans": 13, "img_size": 6},
        [(2, 13, 6, 6), (2, 13, 24, 24)],
        [(2, 13, 24, 24)],
    ),
    "ms_cd": ({"in_chans": 4, "img_size": 32}, [(2, 4, 32, 32)] * 2, [(2, 2, 32, 32)]),
}
"""Config, shapes of the inputs, shapes of the outputs."""

CONSTANT = {
    # The difference of two dates, where nothing weighs it, has no bias of the last block.
    "cd_farmland_sa": {"encoder.blocks.3.mlp.fc2.bias"},
    "mae_spat_b": {"decoder_pos_embed"},
    "mae_spec_b": {"decoder_pos_embed"},
}
"""What is used and yet not trained."""


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_a_gradient_in_every_parameter_that_is_used(name):
    config, inputs, outputs = CASES[name]
    model = published.build(name, size="tiny", **config).eval()
    out = model(*(torch.rand(shape) for shape in inputs))
    out = out if isinstance(out, tuple) else (out,)
    assert [tuple(array.shape) for array in out] == outputs
    sum((array * torch.rand_like(array)).sum() for array in out).backward()
    without = {
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    }
    parameters = {key for key, _ in model.named_parameters()}
    assert without == (unused_names(model) & parameters) | CONSTANT.get(name, set())


def test_a_single_tile_of_spatial_segmentation_has_no_batch_axis():
    model = published.build("seg_spat_base", size="tiny", in_chans=3).eval()
    assert model(torch.rand(1, 3, 32, 32)).shape == (1024, 16)


def test_abundances_add_up_to_one():
    model = published.build("um_ss", size="tiny", in_chans=6, img_size=12).eval()
    abundance, reconstruction = model(torch.rand(2, 6, 12, 12))
    torch.testing.assert_close(abundance.sum(1), torch.ones(2, 12, 12))
    mixed = torch.einsum("crhw,brij->bcij", model.decoder.decoder.weight, abundance)
    torch.testing.assert_close(reconstruction, mixed.clamp(min=0))


def test_no_change_between_a_date_and_itself_whatever_the_date():
    model = published.build("cd_farmland_ss", size="tiny", in_chans=6).eval()
    one, other = torch.rand(2, 2, 6, 5, 5)
    torch.testing.assert_close(model(one, one), model(other, other))
    torch.testing.assert_close(model(one, other), model(other, one))


def test_the_mask_ratio_is_configured_or_said_in_a_call():
    model = published.build("mae_spec_b", size="tiny", in_chans=8, img_size=6, mask_ratio=0.25)
    images, noise = torch.rand(2, 8, 6, 6), torch.arange(8.0).expand(2, -1)
    assert model(images, noise)[2].tolist() == [[0] * 6 + [1] * 2] * 2
    assert model(images, noise, mask_ratio=0.75)[2].tolist() == [[0] * 2 + [1] * 6] * 2


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("cls_base", {}, "expected one of mae_spat_b"),
        ("um_sa", {"num_classes": 3}, "um_sa: expected only in_chans, .*got num_classes"),
        ("cls_ss_base", {"patch_size": 3}, "patch_size of 1, 2, 4 or 8 px, got 3"),
        ("cd_bayarea_sa", {"patch_size": 5}, "5 or 7 tokens a side, got 3"),
        ("dn_spatsigma", {"patch_size": 4}, "patch_size of 2 px, got 4"),
        ("sr_hypersigma_x4", {"patch_size": 2}, "patch_size of 1 px, got 2"),
        ("sr_hypersigma_x4", {"scale": 3}, "scale of 2, 4, 8, ..., got 3"),
        ("htd_ss", {"num_tokens": 20}, "square number with ssa, got 20"),
        ("htd_ss", {"size": "giant"}, "giant"),
    ],
)
def test_what_cannot_be_is_refused_in_words(name, config, message):
    with pytest.raises(ValueError, match=message):
        published.build(name, **{"size": "tiny", **config})
