import numpy as np
import pytest
import torch

from hypersigma import masking
from hypersigma.mae import Mae, spatial_mae, spectral_mae

MAES = [spatial_mae, spectral_mae]
BANDS, SIDE = 12, 16


def small(make, **options) -> Mae:
    torch.manual_seed(0)
    options = {"bands": BANDS, "image_size": SIDE} | options
    if make is spatial_mae:
        options["patch_size"] = 4
    return make("tiny", **options).eval()


def images(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, BANDS, SIDE, SIDE, generator=generator)
    return x, torch.linspace(420, 2400, BANDS).expand(batch, -1)


@pytest.mark.parametrize(
    ("make", "size", "millions"),
    [
        (spatial_mae, "base", 118.951),
        (spatial_mae, "large", 337.993),
        (spatial_mae, "huge", 667.148),
        (spectral_mae, "base", 116.046),
        (spectral_mae, "large", 334.507),
        (spectral_mae, "huge", 663.082),
    ],
)
def test_parameter_counts_are_the_published_ones(make, size, millions):
    with torch.device("meta"):
        count = sum(p.numel() for p in make(size).parameters())
    assert round(count / 1e6, 3) == millions


@pytest.mark.parametrize("make", MAES)
@pytest.mark.parametrize("compat", [False, True])
def test_a_gradient_reaches_every_trained_parameter(make, compat):
    model = small(make, compat=compat)
    x, wavelength = images()
    model(x, wavelength).loss.backward()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    unused = {"decoder_pos_embed", "pos_embed"}
    assert frozen == (unused if compat or make is spectral_mae else {"decoder_pos_embed"})
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("make", MAES)
def test_shapes_and_the_loss_by_hand(make):
    model = small(make)
    x, wavelength = images()
    out = model(x, wavelength, generator=torch.Generator().manual_seed(3))
    tokens, values = (16, 4 * 4 * BANDS) if make is spatial_mae else (BANDS, SIDE * SIDE)
    assert out.prediction.shape == out.target.shape == (2, tokens, values)
    assert out.mask.dtype == torch.bool
    assert out.mask.sum(1).tolist() == [tokens - tokens // 4] * 2
    error = (out.prediction - out.target).detach().numpy() ** 2
    assert out.loss.item() == pytest.approx(error[out.mask.numpy()].mean(), rel=1e-6)


@pytest.mark.parametrize("make", MAES)
def test_hidden_pixels_do_not_leak_into_the_prediction(make):
    model = small(make)
    x, wavelength = images()
    noise = torch.rand(2, model.pos_embed.shape[1])
    before = model(x, wavelength, noise=noise)
    hidden = before.mask
    if make is spatial_mae:
        pixels = hidden.reshape(2, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    else:
        pixels = hidden[..., None, None]
    after = model(torch.where(pixels, 99.0, x), wavelength, noise=noise)
    assert torch.equal(before.prediction, after.prediction)
    assert after.loss > before.loss


@pytest.mark.parametrize("make", MAES)
def test_pixels_that_are_not_valid_do_not_count(make):
    model = small(make)
    x, wavelength = images()
    noise = torch.rand(2, model.pos_embed.shape[1])
    valid = torch.rand(2, SIDE, SIDE) > 0.3
    broken = torch.where(valid[:, None], x, torch.nan)
    out = model(broken, wavelength, valid_BHW=valid, noise=noise)
    assert out.loss.isfinite()
    # By hand, pixel by pixel.
    weight = model.patchify(valid[:, None].expand_as(x).float()) * out.mask[..., None]
    error = (out.prediction - out.target) ** 2
    expected = ((error * weight).sum() / weight.sum()).item()
    assert out.loss.item() == pytest.approx(expected, rel=1e-5)
    everything = model(x, wavelength, valid_BHW=torch.ones_like(valid), noise=noise)
    torch.testing.assert_close(everything.loss, model(x, wavelength, noise=noise).loss)


@pytest.mark.parametrize("make", MAES)
def test_a_sample_without_any_valid_pixel_gives_loss_0_and_finite_gradients(make):
    model = small(make)
    x, wavelength = images()
    nothing = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    loss = model(x * torch.nan, wavelength, valid_BHW=nothing).loss
    loss.backward()
    assert loss == 0
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("make", MAES)
def test_the_baseline_is_the_error_of_one_spectrum_everywhere(make):
    model = small(make)
    x, wavelength = images()
    mask = model(x, wavelength).mask
    spectrum = torch.randn(2, BANDS)
    error = ((x - spectrum[..., None, None]) ** 2).numpy()
    if make is spatial_mae:
        per_token = error.reshape(2, BANDS, 4, 4, 4, 4).mean((1, 3, 5)).reshape(2, 16)
    else:
        per_token = error.mean((2, 3))
    expected = per_token[mask.numpy()].mean()
    assert model.baseline_loss(x, mask, spectrum).item() == pytest.approx(expected, rel=1e-5)
    valid = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    valid[:, :3] = False
    assert model.baseline_loss(x * 0, mask, spectrum * 0 + 2, valid).item() == pytest.approx(4)


@pytest.mark.parametrize("compat", [False, True])
def test_only_the_default_encoder_knows_where_a_patch_is(compat):
    """Shuffle the visible patches among themselves: without positions the latents just follow."""
    model = small(spatial_mae, compat=compat)
    latents = []
    model.norm.register_forward_hook(lambda _module, _args, out: latents.append(out))
    x, _ = images(1)
    keep = torch.tensor([[1, 6, 11, 12]])
    noise = torch.ones(1, 16).scatter(1, keep, torch.arange(4.0)[None] / 10)
    patches = x.unflatten(3, (4, 4)).unflatten(2, (4, 4)).transpose(3, 4).flatten(2, 3)
    shuffled = patches.clone()
    shuffled[:, :, [1, 6, 11, 12]] = patches[:, :, [6, 11, 12, 1]]
    model(x, noise=noise)
    model(shuffled.unflatten(2, (4, 4)).transpose(3, 4).reshape(x.shape), noise=noise)
    moved = (latents[0].roll(-1, 1) - latents[1]).abs().max().item()
    assert (moved < 1e-5) == compat


@pytest.mark.parametrize("compat", [False, True])
def test_only_the_default_predicts_hidden_bands_apart(compat):
    model = small(spectral_mae, compat=compat)
    x, wavelength = images()
    out = model(x, wavelength)
    first, second = out.prediction[0][out.mask[0]][:2]
    assert torch.equal(first, second) == compat


def test_the_spectral_one_follows_the_wavelength():
    model = small(spectral_mae)
    x, wavelength = images()
    noise = torch.rand(2, BANDS)
    first = model(x, wavelength, noise=noise).prediction
    assert not torch.allclose(first, model(x, wavelength + 100, noise=noise).prediction)
    # Bands in another order with their own wavelengths: the same predictions in that order.
    order = torch.randperm(BANDS)
    again = model(x[:, order], wavelength[:, order], noise=noise[:, order]).prediction
    torch.testing.assert_close(again, first[:, order], atol=1e-5, rtol=0)


def test_wrong_input_is_refused_in_words():
    x, wavelength = images()
    with pytest.raises(ValueError, match="needs wavelength_BC"):
        small(spectral_mae)(x)
    with pytest.raises(ValueError, match=r"expected images .* \(12, 16, 16\), got \(11, 16, 16\)"):
        small(spatial_mae)(x[:, 1:], wavelength)
    with pytest.raises(ValueError, match="leaves 0 of 12 tokens visible"):
        small(spectral_mae, mask_ratio=0.95)


def test_a_mask_keeps_the_tokens_of_the_smallest_noise():
    noise = torch.rand(3, 20)
    keep, mask = masking.random_mask(noise, masking.keep_count(20, 0.75))
    np.testing.assert_array_equal(keep, np.argsort(noise.numpy(), axis=1)[:, :5])
    assert mask.sum(1).tolist() == [15] * 3
    assert not mask.gather(1, keep).any()


def test_noise_depends_on_the_generator_alone():
    like = torch.zeros(1)
    draws = [
        masking.draw_noise(2, 9, like=like, generator=torch.Generator().manual_seed(s))
        for s in (5, 5, 6)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_taken_tokens_go_back_to_their_places():
    x, blank = torch.randn(2, 7, 3), torch.full((1, 1, 3), 9.0)
    keep = torch.tensor([[4, 0], [2, 6]])
    full = masking.put_back(masking.take(x, keep), keep, blank, 7)
    for sample, kept in enumerate(keep.tolist()):
        rest = [i for i in range(7) if i not in kept]
        assert torch.equal(full[sample, kept], x[sample, kept])
        assert (full[sample, rest] == 9).all()
