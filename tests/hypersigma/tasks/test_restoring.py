"""Heads, losses, grounds and batches of unmixing, denoising and super-resolution."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import configs
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.cube import new_cube
from hypersigma.metrics.unmixing import spectral_angles
from hypersigma.tasks import denoising, super_resolution, unmixing
from hypersigma.tasks.cubetasks import CUBE_TASKS
from hypersigma.tasks.degrade import degrade
from hypersigma.tasks.restored import (
    BandRange,
    box,
    filled_image,
    grounds,
    pair_batches,
    whole_image,
)
from hypersigma.tasks.task import Facts, TaskConfig
from hypersigma.trainconfig import TrainConfig

MODES = ["spatial", "spectral", "both"]
FACTS = Facts(12, tuple(np.linspace(420.0, 2400.0, 12)), ("a", "b", "c"))


def config(task, mode="spatial", **options):
    return TaskConfig(
        run=Path("run"), task=task, data="none", mode=mode, size="tiny", patch_size=4,
        train=TrainConfig(steps=1, batch_size=2), options=options,
    )  # fmt: skip


def benchmark(rows=24, columns=80, *, seed=0, **known):
    rng = np.random.default_rng(seed)
    x = rng.random((rows, columns, 12)).astype("f4") + 0.1
    return Benchmark("here", "any", new_cube(x, source={"file": "here.mat"}), **known)


def gradients(model):
    """Return the parameters that should have a gradient and have none."""
    return [n for n, p in model.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_unmixing_has_a_gradient_everywhere(mode):
    torch.manual_seed(0)
    model = unmixing.build(config("unmixing", mode, window=8, overlap=4), FACTS)
    model.begin(np.random.default_rng(0).random((12, 3)))
    x = torch.rand(2, 12, 8, 8) + 0.1
    shares, mixed = model(x)
    assert shares.shape == (2, 3, 8, 8)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 8, 8))
    torch.testing.assert_close(mixed, torch.einsum("bkhw,kc->bchw", shares, model.endmembers()))
    model.loss(mixed, x)["loss"].backward()
    assert gradients(model) == []


@pytest.mark.parametrize("mode", MODES)
def test_denoising_has_a_gradient_everywhere(mode):
    torch.manual_seed(0)
    model = denoising.build(config("denoising", mode, window=8, overlap=4, directions=5), FACTS)
    seen = torch.rand(2, 3, 12, 8, 8)
    found = model(seen)
    assert found.shape == (2, 12, 8, 8)
    model.loss(found, torch.rand(2, 12, 8, 8)).backward()
    assert gradients(model) == []


def test_denoising_begins_at_the_better_of_two_estimates():
    torch.manual_seed(0)
    options = {"window": 8, "overlap": 4, "directions": 5}
    true, noise = torch.rand(2, 12, 16, 16)
    model = denoising.build(config("denoising", **options), FACTS)
    model.subspace.fit(true.flatten(1))
    for estimates in ((true, true + noise), (true + noise, true)):
        model.begin(torch.stack((true + noise, *estimates)), true)
        first = float(estimates[0] is true)
        torch.testing.assert_close(model.blend_K11, torch.full((5, 1, 1), first), atol=1e-4, rtol=0)
    # Both noisy, each apart from the other: half of each.
    model.begin(torch.stack((true, true + noise - 0.5, true - noise + 0.5)), true)
    torch.testing.assert_close(model.blend_K11, torch.full((5, 1, 1), 0.5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_super_resolution_has_a_gradient_everywhere(mode, ratio):
    torch.manual_seed(0)
    options = {"ratio": ratio, "window": 8, "overlap": 4, "directions": 5, "width": 8}
    model = super_resolution.build(config("super_resolution", mode, **options), FACTS)
    found = model(torch.rand(1, 12, 8, 8))
    assert found.shape == (1, 12, 8 * ratio, 8 * ratio)
    model.loss(found, torch.rand_like(found)).backward()
    assert gradients(model) == []


def test_an_enlarged_image_gives_its_large_pixels_again():
    torch.manual_seed(0)
    options = {"ratio": 4, "window": 8, "overlap": 4, "directions": 5}
    model = super_resolution.build(config("super_resolution", **options), FACTS).eval()
    small = torch.rand(1, 12, 8, 8)
    with torch.no_grad():
        lacking = (degrade(model(small), 4) - small).abs().mean()
    plain = (degrade(super_resolution.enlarge(small, 4), 4) - small).abs().mean()
    assert lacking < 0.55 * plain


def test_the_angle_is_that_of_the_metric_and_has_a_gradient_at_0():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 6, 12))
    ours = unmixing.angles(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(ours, spectral_angles(a, b).diagonal(), atol=1e-4)
    equal = torch.from_numpy(a).requires_grad_()
    unmixing.angles(equal, torch.from_numpy(a)).sum().backward()
    assert equal.grad.isfinite().all()
    dark = torch.zeros(1, 12, requires_grad=True)
    unmixing.angles(dark, torch.ones(1, 12)).sum().backward()
    assert dark.grad.isfinite().all()


def test_the_residual_does_not_see_the_light_but_the_shape():
    x = torch.rand(5, 12) + 0.1
    assert unmixing.residual(x * torch.rand(5, 1), x) < 1e-5
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    assert unmixing.residual(a, b) == pytest.approx(0.5)  # the second band's half of the power


def test_smoothness_along_bands_has_a_gradient_that_smooths():
    ends = torch.tensor([[1.0, 3.0, 1.0, 1.0]], requires_grad=True)
    rough = unmixing.roughness(ends)
    assert rough.item() == pytest.approx((2 + 2 + 0) / 3 / 1.5)
    rough.backward()
    assert ends.grad[0, 1] > 0  # the spike is to shrink
    assert unmixing.roughness(7 * ends.detach()) == pytest.approx(rough.item())
    # Between endmembers there is none.
    even = torch.tensor([[1.0, 1.0], [5.0, 5.0]])
    assert unmixing.roughness(even) == 0


def test_endmembers_of_another_length_are_refused():
    model = unmixing.build(config("unmixing"), FACTS)
    with pytest.raises(ValueError, match="3 endmembers of the cube's 12 bands, got 3 of 11"):
        model.begin(np.ones((11, 3)))
    with pytest.raises(ValueError, match="expected a number of endmembers, got none"):
        unmixing.prepare(config("unmixing"), benchmark())


def test_grounds_lie_apart_across_the_longer_side():
    for sides in ((24, 96), (96, 24)):
        split = grounds(sides, guard=5, multiple=4)
        long = int(sides[1] > sides[0])
        parts = [box(mask)[long] for mask in (split.train_HW, split.val_HW, split.test_HW)]
        assert all(part.start % 4 == 0 and part.stop % 4 == 0 for part in parts)
        assert [b.start - a.stop for a, b in pairwise(parts)] == [8, 8]
        assert parts[2].stop == 96
        assert all(box(mask)[1 - long] == slice(0, 24) for mask in (split.train_HW, split.test_HW))
        assert split.train_HW.sum() == 24 * (parts[0].stop - parts[0].start)
    with pytest.raises(ValueError, match="got 40 x 10 px"):
        grounds((40, 10), guard=2)


def test_a_range_is_that_of_the_training_pixels_and_is_undone():
    x = torch.arange(101.0)[None].repeat(2, 1) * torch.tensor([[1.0], [3.0]])
    scale = BandRange(2)
    scale.fit(x)
    unit = scale(x[:, :, None])
    torch.testing.assert_close(unit[:, [2, 98], 0], torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(scale.back(unit)[:, :, 0], x)
    flat = BandRange(1)
    flat.fit(torch.ones(1, 9))
    assert flat(torch.ones(1, 3, 3)).isfinite().all()


def test_pairs_belong_together_and_go_on_from_any_state():
    large = torch.randn(3, 24, 40)
    small = large[:, ::2, ::2]

    def batches(state):
        return pair_batches(
            lambda number: (small[None] + number, large + number), state,
            window=4, ratio=2, batch_size=6, seed=5,
        )  # fmt: skip

    stream = batches(None)
    first, state = next(stream)
    second, _ = next(stream)
    again, _ = next(batches(state))
    assert torch.equal(second.seen, again.seen)
    assert second.ids == again.ids
    assert first.seen.shape == (6, 1, 3, 4, 4)
    assert first.true.shape == (6, 3, 8, 8)
    # Turned alike: the mean of a large pixel's samples has one of them in it.
    cells = (
        first.true.unflatten(3, (4, 2)).unflatten(2, (4, 2)).permute(0, 1, 2, 4, 3, 5).flatten(4)
    )
    assert (cells == first.seen[:, 0, ..., None]).any(4).all()


def test_missing_pixels_are_refused_in_training_and_stay_missing_in_use():
    made = benchmark()
    x = made.cube.x_HWC.copy()
    x[3, 4] = np.nan
    cube = new_cube(x, source={"file": "holes.mat"})
    with pytest.raises(ValueError, match=r"holes.mat: .* all 1920 pixels, got none in 1; cut"):
        whole_image(cube)
    filled = filled_image(cube)
    assert filled.isfinite().all()
    torch.testing.assert_close(
        filled[:, 3, 4], torch.from_numpy(x[cube.valid_HW].mean(0)), atol=1e-5, rtol=0
    )
    holes = Benchmark("holes", "any", cube)
    for task in (denoising, super_resolution):
        with pytest.raises(ValueError, match="got none in 1"):
            task.prepare(config(task.__name__.rpartition(".")[2]), holes)
    options = {"window": 8, "overlap": 4, "directions": 5}
    chosen = config("denoising", **options)
    found = denoising.maps(chosen, denoising.build(chosen, FACTS), holes)["denoised"]
    assert np.isnan(found[:, 3, 4]).all()
    assert np.isfinite(found).sum() == found.size - 12


@pytest.mark.parametrize("task", [unmixing, denoising, super_resolution])
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_each_shipped_config_builds_its_model(task, size):
    name = task.__name__.rpartition(".")[2]
    chosen = configs.load(TaskConfig, f"task/{name}_{size}")
    assert chosen.task == name
    assert chosen.size == size
    options = task.options_of(chosen)
    assert options.window % chosen.patch_size == 0
    assert options.overlap <= options.window // 2
    with torch.device("meta"):
        assert CUBE_TASKS[name].build(chosen, FACTS).spatial.size.dim == (
            64 if size == "tiny" else 768
        )
