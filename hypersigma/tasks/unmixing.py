"""Blind unmixing: shares of a few pure spectra in every pixel, and these spectra, of one cube.

An autoencoder: the trunk says the shares, which are not negative and sum to one, and a linear
decoder, which starts at pixels that VCA or N-FINDR finds, mixes its spectra by them. A pixel may be
in more or less light than the mixture: the loss looks at the shape of its spectrum.

Shape letters: B batch, C bands, H W pixels, w window side, K endmembers, N pixels.

Source: Palsson et al. 2018, doi:10.1109/ACCESS.2018.2818280 (spectral angle as the loss).
"""

from collections.abc import Callable, Mapping
from typing import Literal, cast

import numpy as np
import pydantic.dataclasses
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

import configs
from hypersigma.classical.unmixing import nfindr, vca
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.preprocess import Standardize, fit_standardize
from hypersigma.metrics import unmixing_report
from hypersigma.tasks.checks import image_of
from hypersigma.tasks.crops import Crops, crop_batches
from hypersigma.tasks.dense import FEATURES, DenseTrunk, blended
from hypersigma.tasks.task import Facts, Maps, Prepared, Task, TaskConfig

DARKEST = 1e-4
"""Least reflectance that an endmember starts at: what is 0 could not change by a factor."""
EPS = 1e-8


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Options:
    """What `options` of an unmixing may have."""

    endmembers: int | None = Field(default=None, ge=2)
    """How many; null: as many as the benchmark's truth has."""
    start: Literal["nfindr", "vca"] = "nfindr"
    """What finds the pixels that the decoder starts from: N-FINDR is led astray by light that
    varies from pixel to pixel, VCA by noise in dark ones."""
    window: PositiveInt = 24
    """Side of the windows that the model sees [pixel]; whole patches."""
    overlap: NonNegativeInt = 12
    """Pixels that neighbouring windows share when a whole cube is unmixed."""
    angle: NonNegativeFloat = 1.0
    """Weight of the mean angle between spectra and their reconstructions [rad]."""
    residual: NonNegativeFloat = 0.1
    """Weight of the power that is not reconstructed, relative to all."""
    roughness: NonNegativeFloat = 0.01
    """Weight of the endmembers' differences from band to band, relative to their mean."""


class Unmixing(DenseTrunk):
    """Shares and their mixtures, (B, C, w, w) as in the cube -> (B, K, w, w), (B, C, w, w).

    Args:
        facts: Bands, wavelengths and endmembers.
        config: Encoders and patches.
        options: Windows and weights of the loss.
    """

    def __init__(self, facts: Facts, config: TaskConfig, options: Options) -> None:
        super().__init__(facts, config, options.window)
        self.inputs, self.options = Standardize(facts.bands), options
        self.start_KC: Tensor
        self.register_buffer("start_KC", torch.ones(len(facts.classes), facts.bands))
        # Logarithms of factors keep spectra positive, and their decay pulls towards the start.
        self.change_KC = nn.Parameter(torch.zeros(len(facts.classes), facts.bands))
        self.head = nn.Conv2d(FEATURES, len(facts.classes), 1)

    def begin(self, spectra_CK: NDArray[np.floating]) -> None:
        """Let the decoder start from spectra in physical units.

        Raises:
            ValueError: There are not as many, or they have another number of bands.
        """
        count, bands = self.start_KC.shape
        if spectra_CK.shape != (bands, count):
            raise ValueError(
                f"expected {count} endmembers of the cube's {bands} bands, got "
                f"{spectra_CK.shape[1]} of {spectra_CK.shape[0]}; bring them to its wavelengths"
            )
        self.start_KC.copy_(torch.from_numpy(spectra_CK.T.copy()).clamp(min=DARKEST))

    def endmembers(self) -> Tensor:
        """Return the decoder's spectra (K, C), in physical units."""
        return self.start_KC * self.change_KC.exp()

    def forward(self, x_BCww: Tensor) -> tuple[Tensor, Tensor]:
        shares_BKww = self.head(self.features(self.inputs(x_BCww))).softmax(1)
        return shares_BKww, torch.einsum("bkhw,kc->bchw", shares_BKww, self.endmembers())

    def loss(self, mixed_BCww: Tensor, x_BCww: Tensor) -> dict[str, Tensor]:
        """Return `loss` and its parts, over pixels that are finite in all bands."""
        known_Bww = x_BCww.isfinite().all(1)
        x_NC, mixed_NC = (image.movedim(1, -1)[known_Bww] for image in (x_BCww, mixed_BCww))
        parts = {
            "angle": angles(mixed_NC, x_NC).mean(),
            "residual": residual(mixed_NC, x_NC),
            "roughness": roughness(self.endmembers()),
        }
        total = sum((getattr(self.options, name) * part for name, part in parts.items()),
                    start=x_NC.new_zeros(()))  # fmt: skip
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}


def angles(a_NC: Tensor, b_NC: Tensor) -> Tensor:
    """Return the angles between spectra [rad] (N); differentiable where they are equal or 0.

    By the half-angle, as `hypersigma.metrics.unmixing`: arccos has no gradient at 0.
    """
    a, b = (x / (x.square().sum(1, keepdim=True) + EPS).sqrt() for x in (a_NC, b_NC))
    apart, together = (((a + sign * b).square().sum(1) + EPS).sqrt() for sign in (-1, 1))
    return 2 * torch.atan2(apart, together)


def residual(mixed_NC: Tensor, x_NC: Tensor) -> Tensor:
    """Return the share of the spectra's power that their mixtures, each in its best light, lack."""
    light_N = (mixed_NC * x_NC).sum(1) / (mixed_NC.square().sum(1) + EPS)
    return (x_NC - light_N[:, None] * mixed_NC).square().sum() / (x_NC.square().sum() + EPS)


def roughness(ends_KC: Tensor) -> Tensor:
    """Return the mean step from band to band, relative to each endmember's mean."""
    steps_K = (ends_KC[:, 1:] - ends_KC[:, :-1]).abs().mean(1)
    return (steps_K / (ends_KC.mean(1) + EPS)).mean()


def build(config: TaskConfig, facts: Facts) -> Unmixing:
    """Return the model of a config, untrained."""
    return Unmixing(facts, config, options_of(config))


def prepare(config: TaskConfig, benchmark: Benchmark) -> Prepared[Crops]:
    """Return what trains an unmixing of a cube; its truth, if there is one, only measures.

    Raises:
        ValueError: It is not known how many endmembers; or there are fewer pixels or bands.
    """
    options, image_CHW = options_of(config), image_of(benchmark.cube)
    count = _count(options, benchmark)
    facts = Facts.of(benchmark.cube, tuple(f"endmember {k}" for k in range(1, count + 1)))
    known_NC = image_CHW[:, torch.from_numpy(benchmark.cube.valid_HW)].T
    model = build(config, facts)
    model.inputs = fit_standardize(known_NC)
    model.begin(found_spectra(known_NC.T.numpy(), count, options.start, config.train.seed))
    target_HW = np.where(benchmark.cube.valid_HW, 0, -1)

    def losses(
        forward: Callable[..., tuple[Tensor, Tensor]], batch: Crops, rng: torch.Generator
    ) -> dict[str, Tensor]:
        x_BCww = batch.x.to(model.start_KC.device)
        return model.loss(forward(x_BCww)[1], x_BCww)

    return Prepared(
        model=model,
        batches=lambda state: crop_batches(
            image_CHW, target_HW, state, window=options.window,
            batch_size=config.train.batch_size, seed=config.train.seed,
        ),
        losses=losses,
        samples=lambda batch: batch.ids,
        evaluate=dict,  # no pixel has a truth that may choose a checkpoint
        score=None,
        maps=lambda trained: maps(config, cast(Unmixing, trained), benchmark),
        metrics=lambda found: numbers(found, benchmark),
        facts=facts,
    )  # fmt: skip


def found_spectra(
    x_CN: NDArray[np.floating], count: int, start: Literal["nfindr", "vca"], seed: int
) -> NDArray[np.floating]:
    """Return the spectra (C, K) of the purest pixels."""
    find = {"nfindr": nfindr, "vca": vca}[start]
    return x_CN[:, find(x_CN, count, rng=np.random.default_rng(seed))]


def maps(config: TaskConfig, model: Unmixing, benchmark: Benchmark) -> Maps:
    """Return `abundances` (K, H, W) of a cube, NaN without measurement; `endmembers` (K, C)."""
    options = options_of(config)
    device = model.start_KC.device
    model.eval()
    with torch.no_grad():
        shares_KHW = blended(
            lambda x: model(x.to(device))[0], image_of(benchmark.cube), window=options.window,
            overlap=options.overlap,
        ).numpy()  # fmt: skip
    shares_KHW[:, ~benchmark.cube.valid_HW] = np.nan
    return {
        "abundances": shares_KHW,
        "endmembers": model.endmembers().detach().cpu().numpy(),
    }


def numbers(found: Mapping[str, np.ndarray], benchmark: Benchmark) -> dict[str, float]:
    """Return `reconstruction` [rad], and `sad` [rad] and `rmse` where the truth is known.

    All pixels are measured: no truth was trained on.
    """
    valid_HW = benchmark.cube.valid_HW
    shares_KN, ends_KC = found["abundances"][:, valid_HW], found["endmembers"]
    x_NC = image_of(benchmark.cube).numpy()[:, valid_HW].T
    mixed_NC = (shares_KN.T @ ends_KC).astype(np.float32)
    out = {
        "reconstruction": float(angles(torch.from_numpy(mixed_NC), torch.from_numpy(x_NC)).mean())
    }
    if benchmark.endmembers_CE is not None and benchmark.abundances_EHW is not None:
        report = unmixing_report(
            ends_KC, benchmark.endmembers_CE.T, shares_KN, benchmark.abundances_EHW[:, valid_HW]
        )
        out |= {name: report[name] for name in ("sad", "mse", "rmse")}
        for name in ("sad", "rmse"):
            each = zip(range(1, len(ends_KC) + 1), report[f"{name}_each"], strict=True)
            out |= {f"{name}_{number}": value for number, value in each}
    return out


def options_of(config: TaskConfig) -> Options:
    """Return the task's own options, checked."""
    return configs.check(Options, config.options, where="options of unmixing")


def _count(options: Options, benchmark: Benchmark) -> int:
    true = benchmark.endmembers_CE
    if options.endmembers is not None:
        if true is not None and true.shape[1] != options.endmembers:
            raise ValueError(
                f"{benchmark.name}: expected as many endmembers as its truth has, {true.shape[1]}, "
                f"got options.endmembers: {options.endmembers}; leave it out, or the truth in a "
                "description of your own"
            )
        return options.endmembers
    if benchmark.endmembers_CE is None:
        raise ValueError(
            f"{benchmark.name}: expected a number of endmembers, got none and no truth to count; "
            "say options: {endmembers: 4}"
        )
    return int(benchmark.endmembers_CE.shape[1])


TASK = Task(prepare, build, maps)
