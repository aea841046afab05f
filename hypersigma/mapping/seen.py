"""How a model of each task looks at a scene, and what maps its answers make.

Shape letters: B batch, C bands, K answers a pixel, w window side, n rows, W columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hypersigma.mapping.cog import Layer
from hypersigma.mapping.colours import colour
from hypersigma.mapping.denoising import NoisySource
from hypersigma.mapping.sources import Source
from hypersigma.mapping.strips import Run, Windows
from hypersigma.tasks import (
    anomaly_detection,
    change_detection,
    denoising,
    segmentation,
    target_detection,
    unmixing,
)
from hypersigma.tasks.task import Facts, TaskConfig

type Answers = NDArray[np.float32]
NO_CLASS = 0
"""Of a pixel without a measurement."""


@dataclass(frozen=True)
class Output:
    """One map of a task's answers."""

    layer: Layer
    of: Callable[[Answers], NDArray[np.generic]]
    """From answers (K, n, W) to the map's bands (k, n, W)."""


@dataclass(frozen=True)
class Seen:
    """A model as it looks at a scene."""

    model: nn.Module
    run: Run
    windows: Windows
    outputs: Mapping[str, Output]
    """By name, the one to look at first."""
    source: Callable[[Source], Source] = lambda source: source
    """What the model's windows are cut from, of a scene."""


def seen(config: TaskConfig, model: nn.Module, facts: Facts) -> Seen:
    """Return how a trained model looks at scenes.

    Raises:
        ValueError: A task of which no map of a single scene can be made.
    """
    if config.task not in SEEN:
        raise ValueError(
            f"expected a checkpoint of {sorted(SEEN)}, got one of {config.task}: it has no map of "
            "a single scene; `predict` with `data` writes what it says of a benchmark"
        )
    return SEEN[config.task](config, model, facts)


def _segmentation(config: TaskConfig, model: nn.Module, facts: Facts) -> Seen:
    options, names = segmentation.options_of(config), list(facts.classes)
    return Seen(
        model,
        _evaluated(model, lambda logits: logits.softmax(1)),
        Windows(options.window, options.overlap),
        {"class": classes(names), "probability": numbers(names)},
    )


def _changes(config: TaskConfig, model: nn.Module, facts: Facts) -> Seen:
    options, names = change_detection.options_of(config), list(facts.classes)
    return Seen(
        model,
        _evaluated(model, lambda logits: logits.softmax(1)),
        Windows(options.window, options.overlap),
        {"class": classes(names), "probability": numbers(names)},
    )


def _unmixing(config: TaskConfig, model: nn.Module, facts: Facts) -> Seen:
    options = unmixing.options_of(config)
    return Seen(
        model,
        _evaluated(model, lambda found: found[0]), Windows(options.window, options.overlap),
        {"abundance": numbers(list(facts.classes))},
    )  # fmt: skip


def _denoising(config: TaskConfig, model: nn.Module, facts: Facts) -> Seen:
    assert isinstance(model, denoising.Denoising)  # noqa: S101
    options, scale = denoising.options_of(config), model.scale
    run = _evaluated(model)
    return Seen(
        model,
        lambda x_BXww: scale.back(run(x_BXww.unflatten(1, (denoising.ESTIMATES, -1)))),
        Windows(options.window, options.overlap),
        {"denoised": spectra(facts)},
        lambda source: NoisySource(source, model),
    )


def _anomalies(config: TaskConfig, model: nn.Module, facts: Facts) -> Seen:
    options = anomaly_detection.options_of(config)
    return Seen(model, _evaluated(model), Windows(options.window, options.overlap), SCORE)


def _targets(config: TaskConfig, model: nn.Module, facts: Facts) -> Seen:
    options = target_detection.options_of(config)
    return Seen(model, _evaluated(model), Windows(options.window, options.overlap), SCORE)


def classes(names: list[str]) -> Output:
    """Return the map of the likeliest class, 1..K, with the names and a colour each."""
    colours = {number: (*colour(number), 255) for number in range(1, len(names) + 1)}
    tags = [{f"class_{number}": name for number, name in enumerate(names, start=1)}]
    dtype = "uint8" if len(names) < 256 else "uint16"
    layer = Layer(dtype, NO_CLASS, ["class"], {NO_CLASS: (0, 0, 0, 0), **colours}, band_tags=tags)
    return Output(layer, lambda answers: (answers.argmax(0) + 1)[None].astype(dtype))


def numbers(names: list[str]) -> Output:
    """Return the map of the answers themselves."""
    return Output(Layer("float32", float("nan"), names), lambda answers: answers)


def spectra(facts: Facts) -> Output:
    """Return the map that is a cube of the scene's bands, in its physical units."""
    if facts.wavelength is None:
        return numbers([f"band {number}" for number in range(1, facts.bands + 1)])
    tags = [{"wavelength": f"{one:.6f}", "wavelength_units": "nm"} for one in facts.wavelength]
    layer = Layer("float32", float("nan"), [f"{one:g} nm" for one in facts.wavelength],
                  band_tags=tags)  # fmt: skip
    return Output(layer, lambda answers: answers)


SCORE: dict[str, Output] = {"score": numbers(["score"])}
SEEN: dict[str, Callable[[TaskConfig, nn.Module, Facts], Seen]] = {
    "segmentation": _segmentation,
    "change_detection": _changes,
    "anomaly_detection": _anomalies,
    "target_detection": _targets,
    "unmixing": _unmixing,
    "denoising": _denoising,
}


def _evaluated(model: nn.Module, then: Callable[[Any], Tensor] = lambda x: x) -> Run:
    model.eval()
    device = next(model.parameters()).device

    def run(x_BCww: Tensor) -> Tensor:
        with torch.inference_mode():
            return then(model(x_BCww.to(device))).float()

    return run
