import pytest
import torch

from hypersigma.backbones.loading import load_encoder
from hypersigma.mae import spatial_mae, spectral_mae
from hypersigma.tasks import TASKS
from hypersigma.tasks.classification import (
    PatchClassifier,
    build_classifier,
    centre_and_mean,
    centred_padding,
    padded_size,
)

MODES = ["spatial", "spectral", "both"]


def toy(samples: int, seed: int, *, bands: int = 24, window: int = 9):
    """Windows in which every pixel has a class of its own; the class of the centre is asked."""
    spectra = torch.randn(6, bands, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 6, (samples, window, window), generator=generator)
    clean = spectra[classes].permute(0, 3, 1, 2)
    noise = 0.3 * torch.randn(clean.shape, generator=generator)
    wavelength = torch.linspace(420, 2400, bands).expand(samples, -1)
    return clean + noise, wavelength, classes[:, window // 2, window // 2]


@pytest.mark.parametrize(("mode", "steps"), [("spatial", 25), ("spectral", 40), ("both", 25)])
def test_learns_the_centre_pixel_among_mixed_neighbours(mode, steps):
    torch.manual_seed(0)
    model = build_classifier(
        mode, "tiny", in_chans=24, num_classes=6, window=9, patch_size=3, ssa=False
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    x, wavelength, target = toy(512, seed=1)
    for step in range(steps):
        batch = slice(step % 8 * 64, step % 8 * 64 + 64)
        loss = model.loss(model(x[batch], wavelength[batch]), target[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    x, wavelength, target = toy(300, seed=2)
    with torch.no_grad():
        found = model(x, wavelength).argmax(1)
    assert (found == target).float().mean() > 0.9


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ssa", [False, True])
def test_shapes_and_a_gradient_in_every_trained_parameter(mode, ssa):
    model = build_classifier(
        mode, "tiny", in_chans=24, num_classes=5, window=9, patch_size=2, ssa=ssa
    )
    x, wavelength, target = toy(4, seed=1)
    logits = model(x, wavelength)
    assert logits.shape == (4, 5)
    model.loss(logits, target % 5).backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for _, p in trained)
    assert len(trained) == len(list(model.parameters())) - (mode != "spatial")


@pytest.mark.parametrize("window", range(3, 34, 5))
@pytest.mark.parametrize("patch", [1, 2, 3, 4, 8])
def test_the_centre_pixel_lies_in_the_middle_of_a_patch(window, patch):
    before, after = centred_padding(window, patch)
    assert 0 <= before < patch
    assert 0 <= after < patch
    assert padded_size(window, patch) % patch == 0
    assert (before + window // 2) % patch == patch // 2


@pytest.mark.parametrize(("window", "patch"), [(9, 2), (9, 4), (10, 3), (33, 8), (16, 4)])
def test_the_centre_token_is_the_one_that_holds_the_centre_pixel(window, patch):
    """A change of the centre pixel alone changes the centre token's input and no other."""
    model = build_classifier(
        "spatial", "tiny", in_chans=3, num_classes=2, window=window, patch_size=patch
    )
    seen = []
    model.spatial.patch_embed.register_forward_hook(lambda _m, _a, out: seen.append(out[0]))
    rows = []
    model.spatial.blocks[0].register_forward_hook(lambda _m, _a, out: rows.append(out))
    x = torch.randn(1, 3, window, window)
    changed = x.clone()
    changed[:, :, window // 2, window // 2] += 5
    with torch.no_grad():
        model(x)
        model(changed)
    moved = (seen[0] - seen[1]).abs().sum(-1)[0].nonzero().flatten().tolist()
    side = padded_size(window, patch) // patch
    row = (window // 2 + centred_padding(window, patch)[0]) // patch
    assert moved == [row * side + row]


def test_centre_and_mean_by_hand():
    from hypersigma.features import Features

    tokens = torch.arange(9.0).reshape(1, 9, 1)
    assert centre_and_mean(Features(tokens, (3, 3)), 1).tolist() == [[4.0, 4.0]]
    assert centre_and_mean(Features(tokens, (3, 3)), 2).tolist() == [[8.0, 4.0]]


@pytest.mark.parametrize("bands", [12, 100, 175, 330])
def test_any_number_of_bands(bands):
    model = build_classifier(
        "both", "tiny", in_chans=bands, num_classes=3, window=9, patch_size=3, ssa=False
    )
    wavelength = torch.linspace(400, 2500, bands).expand(2, -1)
    assert model(torch.randn(2, bands, 9, 9), wavelength).shape == (2, 3)


def test_pretrained_encoders_of_another_window_and_band_count_load():
    model = build_classifier("both", "tiny", in_chans=48, num_classes=3, window=9, patch_size=3)
    report = load_encoder(model.spatial, spatial_mae("tiny").state_dict())
    assert len(report.resized) == 2
    assert load_encoder(model.spectral, spectral_mae("tiny").state_dict()).resized
    wavelength = torch.linspace(400, 2500, 48).expand(2, -1)
    assert model(torch.randn(2, 48, 9, 9), wavelength).isfinite().all()


def test_wrong_use_is_refused_in_words():
    with pytest.raises(ValueError, match="got none"):
        PatchClassifier(3, 9, spatial=None, spectral=None)
    model = build_classifier("spectral", "tiny", in_chans=24, num_classes=3, window=9, patch_size=3)
    with pytest.raises(ValueError, match="windows of 9 x 9 px, got 9 x 8"):
        model(torch.randn(1, 24, 9, 8))
    with pytest.raises(ValueError, match="needs wavelength_BC"):
        model(torch.randn(1, 24, 9, 9))
    assert TASKS["classification"] is build_classifier
