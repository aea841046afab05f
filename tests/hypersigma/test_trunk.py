import pytest
import torch

from hypersigma.tasks.trunk import REDUCED, Trunk, build_encoders


def trunk(mode):
    torch.manual_seed(0)
    spatial, spectral = build_encoders(
        mode, "tiny", in_chans=12, spatial_size=16, spectral_size=16, patch_size=4, ssa=False
    )
    return Trunk(spatial=spatial, spectral=spectral)


@pytest.mark.parametrize("place", [(), (4, 4)])
def test_each_level_and_channel_is_scaled_by_what_the_spectrum_says(place):
    both = trunk("both")
    x, wavelength = torch.randn(2, 12, 16, 16), torch.linspace(420, 2400, 12).expand(2, -1)
    spectrum = both.spectrum(x, wavelength)
    parts = [torch.randn(2, REDUCED, *place) for _ in range(both.levels)]
    share = torch.stack(
        [e / p - 1 for e, p in zip(both.enhance(parts, spectrum), parts, strict=True)]
    )
    assert share.min() > 0
    assert share.max() < 1
    by_channel = share.flatten(3) if place else share[..., None]
    spread = by_channel.amax(-1) - by_channel.amin(-1)
    assert spread.max() < 1e-4  # the same at all places
    mean = by_channel.mean(-1)
    assert (mean[:, 0] - mean[:, 1]).abs().max() > 1e-4  # of each sample its own
    assert (mean[0] - mean[1]).abs().max() > 1e-4  # and of each level


@pytest.mark.parametrize("mode", ["spatial", "spectral"])
def test_one_encoder_alone_has_nothing_to_fuse(mode):
    alone = trunk(mode)
    names = {name.split(".")[0] for name, _ in alone.named_parameters()}
    assert names == ({"spatial"} if mode == "spatial" else {"spectral", "summary"})
    if mode == "spatial":
        parts = [torch.randn(2, REDUCED)]
        assert alone.spectrum(torch.randn(2, 12, 16, 16), None) is None
        assert alone.enhance(parts, None)[0] is parts[0]


def test_none_at_all_is_refused():
    with pytest.raises(ValueError, match="needs a spatial or a spectral encoder"):
        Trunk(spatial=None, spectral=None)
