"""Super-resolution: a network corrects what bicubic enlarging makes of a cube of large pixels.

It corrects along the few directions in which the scene's spectra vary, then so that the image, were
it degraded again, gave the large pixels. It is trained on pairs made of training ground, degraded
by a sensor's point spread from every phase of the large pixels.

Shape letters: B batch, C bands, K directions of the subspace, H W small pixels, h w large
ones, w window side, r ratio.
"""

from collections.abc import Callable
from typing import Literal, cast

import numpy as np
import pydantic.dataclasses
import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor

import configs
from hypersigma.classical.restoration import bicubic
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.tasks.degrade import MTF_NYQUIST, check_ratio, degrade, enlarge
from hypersigma.tasks.dense import FEATURES, DenseTrunk, blended
from hypersigma.tasks.restored import (
    BandRange,
    Pairs,
    box,
    charbonnier,
    filled_image,
    grounds,
    pair_batches,
    scores,
    val_psnr,
    whole_image,
)
from hypersigma.tasks.subspace import Refiner, Subspace
from hypersigma.tasks.task import Facts, Maps, Prepared, Task, TaskConfig

PROJECTIONS = 2
"""How often the image is corrected by what its large pixels lack of those that were seen.

Source: Irani & Peleg 1991, doi:10.1016/1049-9652(91)90045-L.
"""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Options:
    """What `options` of a super-resolution may have."""

    ratio: Literal[2, 4, 8] = 4
    """Small pixels along a large one."""
    mtf: float = Field(default=MTF_NYQUIST, gt=0, lt=1)
    """Contrast that the sensor of large pixels keeps at its Nyquist frequency."""
    cut: bool = False
    """Leave out the last rows and columns that do not fill a large pixel; false: refuse them."""
    window: int = Field(default=8, ge=3)
    """Side of the windows that the model sees [large pixel]; whole patches."""
    overlap: NonNegativeInt = 4
    """Large pixels that neighbouring windows share when a whole cube is enlarged."""
    guard: NonNegativeInt = 8
    """Between the grounds that are trained and measured on [small pixel]."""
    directions: PositiveInt = 12
    """Directions in which the bicubic image is corrected; not more than there are bands."""
    width: PositiveInt = 32
    """Channels of the network that corrects it."""
    depth: int = Field(default=4, ge=2)
    """Its layers."""


class SuperResolution(DenseTrunk):
    """Images of small pixels, from large ones, scaled: (B, C, w, w) -> (B, C, r w, r w).

    Args:
        facts: Bands and wavelengths.
        config: Encoders and patches, of large pixels.
        options: Ratio, windows and widths.
    """

    def __init__(self, facts: Facts, config: TaskConfig, options: Options) -> None:
        super().__init__(facts, config, options.window)
        self.scale, self.ratio, self.mtf = BandRange(facts.bands), options.ratio, options.mtf
        self.subspace = Subspace(facts.bands, options.directions)
        self.refine = Refiner(1, FEATURES, self.ratio**2, width=options.width, depth=options.depth)

    def forward(self, small_BCww: Tensor) -> Tensor:
        # Of mean 0 and deviation 1, nearly: a band's range is about four deviations.
        features = self.features(4 * small_BCww - 2)
        fine_BXww = self.refine(self.subspace(small_BCww)[:, :, None], features).flatten(1, 2)
        image = enlarge(small_BCww, self.ratio)
        image = image + self.subspace.back(F.pixel_shuffle(fine_BXww, self.ratio))
        for _ in range(PROJECTIONS):
            lacking_BCww = small_BCww - degrade(image, self.ratio, mtf=self.mtf)
            image = image + enlarge(lacking_BCww, self.ratio)
        return image

    def loss(self, found_BCHW: Tensor, true_BCHW: Tensor) -> Tensor:
        """Return the mean absolute error, a scalar, without the outermost large pixels.

        Their surroundings are not in the window.
        """
        inside = (..., slice(self.ratio, -self.ratio), slice(self.ratio, -self.ratio))
        return charbonnier(found_BCHW[inside], true_BCHW[inside])


def build(config: TaskConfig, facts: Facts) -> SuperResolution:
    """Return the model of a config, untrained."""
    return SuperResolution(facts, config, options_of(config))


def prepare(config: TaskConfig, benchmark: Benchmark) -> Prepared[Pairs]:
    """Return what trains and measures the enlarging of a cube that is degraded first.

    Raises:
        ValueError: Pixels have no measurement, the ratio does not divide the image's sides, or the
            image is too small for grounds and windows.
    """
    options, image_CHW = options_of(config), truth(config, benchmark)
    ratio = options.ratio
    split = grounds(sides_of(image_CHW), guard=options.guard, multiple=ratio)
    train, val, test = (box(mask) for mask in (split.train_HW, split.val_HW, split.test_HW))
    facts = Facts.of(benchmark.cube)
    model = build(config, facts)
    model.scale.fit(image_CHW[:, *train].flatten(1))
    clean_CHW, seed = model.scale(image_CHW), config.train.seed
    model.subspace.fit(clean_CHW[:, *train].flatten(1))

    def scene(number: int) -> tuple[Tensor, Tensor]:
        """Return the training ground from a phase of the large pixels that is drawn anew."""
        row, column = np.random.default_rng([seed, 2, number]).integers(0, ratio, 2)
        ground = clean_CHW[:, *train][:, row:, column:]
        height, width = (side // ratio * ratio for side in ground.shape[1:])
        ground = ground[:, :height, :width]
        return degrade(ground[None], ratio, mtf=options.mtf), ground

    def losses(
        forward: Callable[..., Tensor], batch: Pairs, rng: torch.Generator
    ) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        found = forward(batch.seen[:, 0].to(device))
        return {"loss": model.loss(found, batch.true.to(device))}

    def evaluate() -> dict[str, float]:
        small = degrade(clean_CHW[None], ratio, mtf=options.mtf)[0]
        return val_psnr(enlarged(model, small, options)[:, *val], clean_CHW[:, *val])

    return Prepared(
        model=model,
        batches=lambda state: pair_batches(
            scene, state, window=options.window, ratio=ratio,
            batch_size=config.train.batch_size, seed=seed,
        ),
        losses=losses,
        samples=lambda batch: batch.ids,
        evaluate=evaluate,
        score="val_psnr",
        maps=lambda trained: _maps(
            cast(SuperResolution, trained), observed(config, benchmark), options
        ),
        metrics=lambda found: scores(
            found["enlarged"], image_CHW.numpy(), model.scale, test, ratio=ratio
        ),
        facts=facts,
        split=split,
    )  # fmt: skip


def truth(config: TaskConfig, benchmark: Benchmark) -> Tensor:
    """Return the image (C, H, W) that is to be found again, cut if the options say so.

    Raises:
        ValueError: Pixels have no measurement, or the ratio does not divide the sides.
    """
    options, image_CHW = options_of(config), whole_image(benchmark.cube)
    height, width = sides_of(image_CHW)
    if options.cut:
        height, width = (side // options.ratio * options.ratio for side in (height, width))
    check_ratio(options.ratio, (height, width))
    return image_CHW[:, :height, :width]


def observed(config: TaskConfig, benchmark: Benchmark) -> Tensor:
    """Return the cube of large pixels (C, h, w) that a run of this config is measured on."""
    options = options_of(config)
    return degrade(truth(config, benchmark)[None], options.ratio, mtf=options.mtf)[0]


def baseline(config: TaskConfig, benchmark: Benchmark) -> Maps:
    """Return the bicubic image of that cube, as `enlarged`."""
    small_Chw = observed(config, benchmark).numpy()
    return {"enlarged": bicubic(small_Chw, options_of(config).ratio).astype(np.float32)}


def maps(config: TaskConfig, model: SuperResolution, benchmark: Benchmark) -> Maps:
    """Return `enlarged` (C, r H, r W) of a cube as it is, NaN where it is not measured."""
    options = options_of(config)
    found = _maps(model, filled_image(benchmark.cube), options)
    missing_HW = ~benchmark.cube.valid_HW
    for axis in (0, 1):
        missing_HW = missing_HW.repeat(options.ratio, axis)
    found["enlarged"][:, missing_HW] = np.nan
    return found


def enlarged(model: SuperResolution, small_Chw: Tensor, options: Options) -> Tensor:
    """Return what the model makes of a scaled image of large pixels, (C, r h, r w), scaled."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        # Windows are blended at large pixels, with all small ones of each in channels.
        image_Xhw = blended(
            lambda x: F.pixel_unshuffle(model(x.to(device)), options.ratio), small_Chw,
            window=options.window, overlap=options.overlap,
        )  # fmt: skip
    return F.pixel_shuffle(image_Xhw, options.ratio)


def sides_of(image_CHW: Tensor) -> tuple[int, int]:
    """Return rows and columns."""
    return image_CHW.shape[1], image_CHW.shape[2]


def options_of(config: TaskConfig) -> Options:
    """Return the task's own options, checked."""
    return configs.check(Options, config.options, where="options of super_resolution")


def _maps(model: SuperResolution, small_Chw: Tensor, options: Options) -> Maps:
    scale = model.scale
    return {"enlarged": scale.back(enlarged(model, scale(small_Chw), options)).numpy()}


TASK = Task(prepare, build, maps)
