"""Denoising: a network corrects two estimates of a clean cube, where its spectra vary.

The first is that of `hypersigma.classical.restoration.low_rank`. The second lies in the subspace of
clean training spectra, by what the noisy bands agree on: dead lines, stripes and impulses hardly
count. The network begins at their best blend, and is trained on windows of training ground whose
noise is drawn anew again and again.

Shape letters: B batch, C bands, K directions of the subspace, H W pixels, w window side.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import cast

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

import configs
from hypersigma.classical.restoration import low_rank
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.tasks.dense import FEATURES, DenseTrunk, blended
from hypersigma.tasks.noise import NoiseName, noisy
from hypersigma.tasks.restored import (
    BandRange,
    Pairs,
    box,
    charbonnier,
    grounds,
    pair_batches,
    scores,
    val_psnr,
    whole_image,
)
from hypersigma.tasks.subspace import Refiner, Subspace
from hypersigma.tasks.task import Facts, Maps, Prepared, Task, TaskConfig

TRAIN, VAL, TEST = 0, 1, 2
"""Second seed of the noise of each ground."""
ESTIMATES = 3
"""Images that the model is given: the noisy one, and two estimates of the clean one."""
LEAST_PIXELS = 2
"""With fewer there is nothing to estimate from."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Options:
    """What `options` of a denoising may have."""

    noise: NoiseName = "gaussian"
    """What is added to the clean cube, to train and to measure."""
    window: PositiveInt = 24
    """Side of the windows that the model sees [pixel]; whole patches."""
    overlap: NonNegativeInt = 12
    """Pixels that neighbouring windows share when a whole cube is denoised."""
    guard: NonNegativeInt = 4
    """Between the grounds that are trained and measured on [pixel]."""
    directions: PositiveInt = 12
    """Directions in which the estimates are corrected; not more than there are bands."""
    width: PositiveInt = 32
    """Channels of the network that corrects them."""
    depth: int = Field(default=4, ge=2)
    """Its layers."""
    reuse: PositiveInt = 16
    """Batches drawn of one noisy image, before another one is made."""


class Denoising(DenseTrunk):
    """A noisy image and two estimates to a better one, (B, 3, C, w, w) -> (B, C, w, w), scaled.

    Args:
        facts: Bands and wavelengths.
        config: Encoders and patches.
        options: Windows and widths.
    """

    def __init__(self, facts: Facts, config: TaskConfig, options: Options) -> None:
        super().__init__(facts, config, options.window)
        self.scale = BandRange(facts.bands)
        self.subspace = Subspace(facts.bands, options.directions)
        self.refine = Refiner(2, FEATURES, 1, width=options.width, depth=options.depth)
        self.blend_K11 = nn.Parameter(torch.full((len(self.subspace.std_K), 1, 1), 0.5))
        # What lies outside the subspace is the first estimate's, as far as it is of use.
        self.outside_C11 = nn.Parameter(torch.ones(facts.bands, 1, 1))

    def begin(self, seen_3CHW: Tensor, true_CHW: Tensor) -> None:
        """Let the model begin at the best blend of the estimates, by training ground.

        Args:
            seen_3CHW: Noisy training ground and both estimates.
            true_CHW: What is to be found.
        """
        _, low_rank_CHW, robust_CHW = seen_3CHW
        mean_C11 = self.subspace.mean_C[:, None, None]
        low_rank_KHW, robust_KHW, true_KHW = self.subspace(
            torch.stack((low_rank_CHW, robust_CHW, true_CHW))
        )
        self.blend_K11.data = _share(true_KHW - robust_KHW, low_rank_KHW - robust_KHW)
        outside, true_outside = (
            image - mean_C11 - self.subspace.back(part[None])[0]
            for image, part in ((low_rank_CHW, low_rank_KHW), (true_CHW, true_KHW))
        )
        self.outside_C11.data = _share(true_outside, outside)

    def forward(self, seen_B3Cww: Tensor) -> Tensor:
        noisy_BCww, low_rank_BCww, robust_BCww = seen_B3Cww.unbind(1)
        both_BK2ww = torch.stack((self.subspace(low_rank_BCww), self.subspace(robust_BCww)), 2)
        low_rank_BKww, robust_BKww = both_BK2ww.unbind(2)
        # Of mean 0 and deviation 1, nearly: a band's range is about four deviations.
        features = self.features(4 * robust_BCww - 2)
        # Each direction is brought to noise of deviation 1: how smooth it should be depends on it.
        noise_BK11 = self.subspace.noise(noisy_BCww - robust_BCww)[..., None, None]
        corrections = self.refine(both_BK2ww / noise_BK11[:, :, None], features)[:, :, 0]
        refined_BKww = (
            robust_BKww + self.blend_K11 * (low_rank_BKww - robust_BKww) + noise_BK11 * corrections
        )
        mean_C11 = self.subspace.mean_C[:, None, None]
        outside = low_rank_BCww - mean_C11 - self.subspace.back(low_rank_BKww)
        return mean_C11 + self.subspace.back(refined_BKww) + self.outside_C11 * outside

    def loss(self, found_BCww: Tensor, true_BCww: Tensor) -> Tensor:
        """Return the mean absolute error, a scalar."""
        return charbonnier(found_BCww, true_BCww)


def _share(wanted_NHW: Tensor, given_NHW: Tensor) -> Tensor:
    """Return the share (N, 1, 1), from 0 to 1, of each image that comes nearest to another."""
    fit_N = (wanted_NHW * given_NHW).sum((1, 2)) / given_NHW.square().sum((1, 2)).clamp(min=1e-12)
    return fit_N.clamp(0, 1)[:, None, None]


def build(config: TaskConfig, facts: Facts) -> Denoising:
    """Return the model of a config, untrained."""
    return Denoising(facts, config, options_of(config))


def prepare(config: TaskConfig, benchmark: Benchmark) -> Prepared[Pairs]:
    """Return what trains and measures a denoising of a clean cube to which noise is added.

    Raises:
        ValueError: Pixels have no measurement, or the image is too small for grounds and windows.
    """
    options, image_CHW = options_of(config), whole_image(benchmark.cube)
    split = grounds(benchmark.cube.sides, guard=options.guard)
    train, val, test = (box(mask) for mask in (split.train_HW, split.val_HW, split.test_HW))
    facts = Facts.of(benchmark.cube)
    model = build(config, facts)
    model.scale.fit(image_CHW[:, *train].flatten(1))
    clean_CHW, seed = model.scale(image_CHW), config.train.seed
    model.subspace.fit(clean_CHW[:, *train].flatten(1))

    @lru_cache(maxsize=1)
    def scene(realisation: int) -> Tensor:
        ground = clean_CHW[:, *train].numpy()
        return estimates(model, noisy(ground, options.noise, seed, TRAIN, realisation))

    model.begin(scene(0), clean_CHW[:, *train])

    @lru_cache(maxsize=1)
    def val_image() -> Tensor:
        return estimates(model, noisy(clean_CHW.numpy(), options.noise, seed, VAL))

    def evaluate() -> dict[str, float]:
        found = denoised(model, val_image()[:, :, *val], options)
        return val_psnr(found, clean_CHW[:, *val])

    def losses(
        forward: Callable[..., Tensor], batch: Pairs, rng: torch.Generator
    ) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        return {"loss": model.loss(forward(batch.seen.to(device)), batch.true.to(device))}

    return Prepared(
        model=model,
        batches=lambda state: pair_batches(
            lambda number: (scene(number // options.reuse), clean_CHW[:, *train]), state,
            window=options.window, ratio=1, batch_size=config.train.batch_size, seed=seed,
        ),
        losses=losses,
        samples=lambda batch: batch.ids,
        evaluate=evaluate,
        score="val_psnr",
        maps=lambda trained: _maps(
            cast(Denoising, trained), observed(config, benchmark), options
        ),
        metrics=lambda found: scores(found["denoised"], image_CHW.numpy(), model.scale, test),
        facts=facts,
        split=split,
    )  # fmt: skip


def observed(config: TaskConfig, benchmark: Benchmark) -> np.ndarray:
    """Return the noisy cube (C, H, W) that a run of this config is measured on, physical units."""
    options, image_CHW = options_of(config), whole_image(benchmark.cube)
    scale = BandRange(benchmark.cube.bands)
    split = grounds(benchmark.cube.sides, guard=options.guard)
    scale.fit(image_CHW[:, *box(split.train_HW)].flatten(1))
    seen = noisy(scale(image_CHW).numpy(), options.noise, config.train.seed, TEST)
    return scale.back(torch.from_numpy(seen)).numpy()


def baseline(config: TaskConfig, benchmark: Benchmark) -> Maps:
    """Return what the low-rank estimate alone makes of that cube, as `denoised`."""
    return {"denoised": low_rank(observed(config, benchmark)).astype(np.float32)}


def maps(config: TaskConfig, model: Denoising, benchmark: Benchmark) -> Maps:
    """Return `denoised` (C, H, W) of a cube that is noisy itself, NaN where it is not measured."""
    cube = benchmark.cube
    found = _maps(model, cube.physical_CHW(), options_of(config), cube.valid_HW)
    found["denoised"][:, ~cube.valid_HW] = np.nan
    return found


def estimates(
    model: Denoising, noisy_CHW: np.ndarray, valid_HW: np.ndarray | None = None
) -> Tensor:
    """Return a scaled image and both its estimates (3, C, H, W).

    Pixels that were not measured have no part in the estimates; they, and bands that are not finite
    in single pixels, are filled with the mean.

    Args:
        model: Its subspace is that of clean spectra.
        noisy_CHW: Scaled image.
        valid_HW: Where it was measured; None: everywhere.
    """
    seen = torch.from_numpy(noisy_CHW.astype(np.float32))
    if valid_HW is None:
        valid_HW = np.ones(noisy_CHW.shape[1:], np.bool_)
    mean_C11 = model.subspace.mean_C.cpu()[:, None, None]
    found = mean_C11.expand(seen.shape).repeat(ESTIMATES, 1, 1, 1)
    if np.count_nonzero(valid_HW) < LEAST_PIXELS:
        return found
    where_HW = torch.from_numpy(valid_HW)
    # Spectra in a row: neither estimate looks at neighbours.
    known_C1N = seen[:, None, where_HW]
    mean_C1 = known_C1N.nanmean(2)
    mean_C1 = torch.where(mean_C1.isfinite(), mean_C1, mean_C11[..., 0])
    known_C1N = torch.where(known_C1N.isfinite(), known_C1N, mean_C1[..., None])
    first = torch.from_numpy(low_rank(known_C1N.numpy()).astype(np.float32))
    each = torch.stack((known_C1N, first, model.subspace.robust(known_C1N)))
    found[:, :, where_HW] = each[:, :, 0]
    return found


def denoised(model: Denoising, estimates_3CHW: Tensor, options: Options) -> Tensor:
    """Return what the model makes of a scaled image and its estimates, (C, H, W) scaled."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        return blended(
            lambda x: model(x.unflatten(1, (ESTIMATES, -1)).to(device)),
            estimates_3CHW.flatten(0, 1),
            window=options.window,
            overlap=options.overlap,
        )


def options_of(config: TaskConfig) -> Options:
    """Return the task's own options, checked."""
    return configs.check(Options, config.options, where="options of denoising")


def _maps(
    model: Denoising,
    observed_CHW: np.ndarray,
    options: Options,
    valid_HW: np.ndarray | None = None,
) -> Maps:
    scale = model.scale
    seen = estimates(model, scale(torch.from_numpy(observed_CHW)).numpy(), valid_HW)
    return {"denoised": scale.back(denoised(model, seen, options)).numpy()}


TASK = Task(prepare, build, maps)
