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
@pytest.mark.parametrize("hidden_only", [False, True])
def test_images_have_the_loss_of_their_hidden_pixels(make, hidden_only):
    model = small(make)
    x, wavelength = images()
    out = model(x, wavelength, hidden_only=hidden_only)
    guess = torch.randn(2, BANDS, 1, 1).expand_as(x)
    error = ((x - guess) ** 2).numpy()
    if make is spatial_mae:
        per_token = error.reshape(2, BANDS, 4, 4, 4, 4).mean((1, 3, 5)).reshape(2, 16)
    else:
        per_token = error.mean((2, 3))
    expected = per_token[out.mask.numpy()].mean()
    assert model.loss_of(guess, out).item() == pytest.approx(expected, rel=1e-5)
    valid = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    valid[:, :3] = False
    out = model(x * 0, wavelength, valid_BHW=valid, hidden_only=hidden_only)
    assert model.loss_of(torch.full_like(x, 2.0), out).item() == pytest.approx(4)


@pytest.mark.parametrize("make", MAES)
@pytest.mark.parametrize("options", [{}, {"norm_pix": True}, {"anchor": True}, {"compat": True}])
def test_predicting_only_what_is_hidden_changes_nothing_that_is_learnt(make, options):
    if make is spatial_mae and "anchor" in options:
        options = {"block": 2}
    model = small(make, **options)
    x, wavelength = images()
    valid = torch.rand(2, SIDE, SIDE) > 0.2
    found = []
    for hidden_only in (False, True):
        model.zero_grad()
        out = model(
            x, wavelength, valid_BHW=valid, hidden_only=hidden_only,
            generator=torch.Generator().manual_seed(5),
        )  # fmt: skip
        out.loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((out, gradients))
    (whole, of_whole), (part, of_part) = found
    torch.testing.assert_close(part.loss, whole.loss)
    rows = whole.prediction.gather(1, part.places[..., None].expand_as(part.prediction))
    torch.testing.assert_close(part.prediction, rows, atol=1e-5, rtol=1e-5)
    assert whole.mask.gather(1, part.places).all()
    for name, gradient in of_whole.items():
        torch.testing.assert_close(of_part[name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("make", MAES)
def test_normalised_targets_have_mean_0_and_deviation_1_over_valid_pixels(make):
    model = small(make, norm_pix=True)
    x, wavelength = images()
    valid = torch.rand(2, SIDE, SIDE) > 0.3
    out = model(torch.where(valid[:, None], 5 + 3 * x, torch.nan), wavelength, valid_BHW=valid)
    counted = model.patchify(valid[:, None].expand_as(x).float()) > 0
    for sample in range(2):
        for token in range(out.target.shape[1]):
            values = out.target[sample, token][counted[sample, token]]
            assert values.mean().item() == pytest.approx(0, abs=1e-5)
            assert values.std().item() == pytest.approx(1, rel=1e-3)
    shown = model.patchify(torch.where(valid[:, None], 5 + 3 * x, 0))
    torch.testing.assert_close(out.unscaled(out.target)[counted], shown[counted])
    assert small(make)(x, wavelength, noise=torch.rand(2, len(out.mask[0]))).loss != out.loss


def test_the_anchor_is_a_straight_line_between_visible_bands():
    model = small(spectral_mae, anchor=True)
    x, _ = images(2)
    wavelength = torch.linspace(400, 950, BANDS).expand(2, -1) + torch.rand(2, BANDS)
    noise = torch.ones(2, BANDS).scatter(1, torch.tensor([[1, 4, 10], [7, 0, 2]]), 0.0)
    found = model.unpatchify(model(x, wavelength, noise=noise).prediction)  # nothing learnt yet
    for n, visible in enumerate(([1, 4, 10], [0, 2, 7])):
        for row, column in ((0, 0), (3, 9)):
            expected = np.interp(wavelength[n], wavelength[n, visible], x[n, visible, row, column])
            np.testing.assert_allclose(found[n, :, row, column].detach(), expected, rtol=1e-3)


@pytest.mark.parametrize("make", MAES)
def test_images_come_back_from_their_tokens(make):
    model, (x, _) = small(make), images()
    assert torch.equal(model.unpatchify(model.patchify(x)), x)


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
    keep, hidden, mask = masking.random_mask(noise, masking.keep_count(20, 0.75))
    order = np.argsort(noise.numpy(), axis=1)
    np.testing.assert_array_equal(keep, order[:, :5])
    np.testing.assert_array_equal(hidden, order[:, 5:])
    assert mask.sum(1).tolist() == [15] * 3
    assert not mask.gather(1, keep).any()


@pytest.mark.parametrize("block", [1, 2])
def test_noise_depends_on_the_generator_alone(block):
    like = torch.zeros(1)
    draws = [
        masking.draw_noise(
            2, (3, 3), block=block, like=like, generator=torch.Generator().manual_seed(s)
        )
        for s in (5, 5, 6)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(("grid", "block"), [((8, 8), 3), ((100, 1), 10), ((1, 1), 4), ((5, 9), 2)])
def test_blocks_are_hidden_together(grid, block):
    tokens = grid[0] * grid[1]
    generator = torch.Generator().manual_seed(0)
    noise = masking.draw_noise(64, grid, block=block, like=torch.zeros(1), generator=generator)
    assert noise.shape == (64, tokens)
    assert all(len(row.unique()) == tokens for row in noise)
    if tokens == 1:
        return
    mask = masking.random_mask(noise, tokens // 2)[2].reshape(64, *grid).float()
    axis = 1 if grid[0] > 1 else 2
    alike = (mask.diff(dim=axis) == 0).float().mean().item()
    # Of neighbours, one pair in `block` lies across a border, where half differ.
    assert alike > 1 - 0.5 / block - 0.12


def test_taken_tokens_go_back_to_their_places():
    x, blank = torch.randn(2, 7, 3), torch.full((1, 1, 3), 9.0)
    keep = torch.tensor([[4, 0], [2, 6]])
    full = masking.put_back(masking.take(x, keep), keep, blank, 7)
    for sample, kept in enumerate(keep.tolist()):
        rest = [i for i in range(7) if i not in kept]
        assert torch.equal(full[sample, kept], x[sample, kept])
        assert (full[sample, rest] == 9).all()


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_anchor_is_exact_where_bands_differ_by_a_line_alone(norm_pix, dtype):
    model = small(spectral_mae, anchor=True, norm_pix=norm_pix)
    torch.nn.init.zeros_(model.decoder_pred.bias)
    x, wavelength = images()
    valid = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    valid[1, :, :5] = False
    same = 5 + x[:, :1].expand_as(x)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = model(same, wavelength, valid_BHW=valid, generator=torch.Generator().manual_seed(0))
    assert out.loss < 1e-10
