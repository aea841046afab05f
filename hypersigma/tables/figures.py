"""Figures of a table: maps beside the truth, ROC curves, spectra, abundances, restored bands."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.splits import Split
from hypersigma.mapping.colours import COLOURS
from hypersigma.metrics.unmixing import matched
from hypersigma.report_figures import LOOK
from storage.html import data_uri

ACROSS = 5
"""Maps beside each other."""
SIDE = 2.3
"""Of a map [inch]."""
LEGEND = 1.9
"""Width of a name [inch]."""
DPI = 110


@dataclass(frozen=True)
class Shown:
    """What a row of the table said of the scene."""

    name: str
    maps: Mapping[str, NDArray[Any]]
    split: Split | None = None
    """Which pixels are measured on; None: all."""


type Figures = Iterator[tuple[str, str]]


def draw(task: str, benchmark: Benchmark, shown: Sequence[Shown]) -> Figures:
    """Yield the figures of a table: in words what each shows, and the picture as an address."""
    if shown:
        yield from FIGURES[task](benchmark, shown)


def class_maps(benchmark: Benchmark, shown: Sequence[Shown]) -> Figures:
    """Draw the truth and the classes that each row found."""
    assert benchmark.labels_HW is not None  # noqa: S101  # it has been trained on
    palette = ListedColormap(np.array([(255, 255, 255), *COLOURS]) / 255)

    def paint(axis: Axes, image_HW: NDArray[Any]) -> None:
        axis.imshow(
            image_HW, cmap=palette, vmin=-0.5, vmax=len(COLOURS) + 0.5, interpolation="nearest"
        )

    panels = [("truth", benchmark.labels_HW), *((one.name, one.maps["class"]) for one in shown)]
    figure = _grid(panels, paint)
    handles = [
        figure.axes[0].plot([], [], "s", color=palette(number), label=name)[0]
        for number, name in enumerate(benchmark.classes, start=1)
    ]
    if handles:
        across = max(1, int(figure.get_figwidth() / LEGEND))
        figure.set_figheight(figure.get_figheight() + 0.25 * -(-len(handles) // across))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=across, frameon=False, fontsize=8
        )
    yield "Classes of every pixel; white in the truth is not labelled.", _png(figure)


def score_maps(benchmark: Benchmark, shown: Sequence[Shown]) -> Figures:
    """Draw the truth and each row's scores, and the curves of detections over false alarms."""
    assert benchmark.labels_HW is not None  # noqa: S101  # it has been measured by
    target_HW = benchmark.labels_HW > 0

    def paint(axis: Axes, image_HW: NDArray[Any]) -> None:
        low, high = np.percentile(image_HW, (1, 99.5))
        axis.imshow(image_HW, cmap="magma", vmin=low, vmax=max(high, low + 1e-12),
                    interpolation="nearest")  # fmt: skip

    panels = [("truth", target_HW.astype(float)),
              *((one.name, one.maps["score"]) for one in shown)]  # fmt: skip
    yield "Scores; light is likelier.", _png(_grid(panels, paint))
    figure, (axis,) = _axes(1)
    for number, one in enumerate(shown):
        where_HW = benchmark.cube.valid_HW if one.split is None else one.split.test_HW
        false, found = roc(one.maps["score"][where_HW], target_HW[where_HW])
        axis.plot(false, found, label=one.name, color=_colour(number), linewidth=1.4)
    least = 1 / max(1, int((~target_HW).sum()))
    axis.set(xscale="log", xlim=(least, 1), ylim=(0, 1.02), xlabel="false alarms", ylabel="found")
    axis.legend(frameon=False, loc="lower right")
    yield "Share of targets found over the share of background taken for one.", _png(figure)


def unmixings(benchmark: Benchmark, shown: Sequence[Shown]) -> Figures:
    """Draw abundances, a line a row, and the spectra of endmembers, in the true order."""
    ends_EC = None if benchmark.endmembers_CE is None else benchmark.endmembers_CE.T
    ordered = [
        (one.name, *in_order(one.maps["endmembers"], one.maps["abundances"], ends_EC))
        for one in shown
    ]
    lines = [(name, shares) for name, _, shares in ordered]
    if benchmark.abundances_EHW is not None:
        lines.insert(0, ("truth", benchmark.abundances_EHW))
    count = max(len(shares) for _, shares in lines)
    names = benchmark.classes or tuple(f"endmember {number + 1}" for number in range(count))
    with rc_context(LOOK):
        figure = Figure(figsize=(SIDE * count, 2.0 * len(lines)), layout="constrained")
        grid = figure.subplots(len(lines), count, squeeze=False)
        for line, (name, shares) in enumerate(lines):
            for number in range(count):
                axis = grid[line, number]
                axis.set(xticks=[], yticks=[])
                if number < len(shares):
                    axis.imshow(shares[number], cmap="viridis", vmin=0, vmax=1)
                if not line:
                    axis.set_title(names[number])
            grid[line, 0].set_ylabel(name.replace(", ", "\n"), fontsize=7)
    yield "Abundances, from 0 (dark) to 1.", _png(figure)
    figure, axes = _axes(count)
    for number, axis in enumerate(axes):
        if ends_EC is not None:
            axis.plot(_unit(ends_EC[number]), color="black", linewidth=2, label="truth")
        for row, (name, ends, _) in enumerate(ordered):
            if number < len(ends):
                axis.plot(_unit(ends[number]), color=_colour(row), linewidth=1, label=name)
        axis.set(title=names[number], xlabel="band")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    yield "Spectra of endmembers, of unit length.", _png(figure)


def restorations(key: str) -> Callable[[Benchmark, Sequence[Shown]], Figures]:
    """Return what draws a band of the true image and of each row's, and a pixel's spectrum."""

    def figures(benchmark: Benchmark, shown: Sequence[Shown]) -> Figures:
        true_CHW = benchmark.cube.physical_CHW()
        images = [(one.name, one.maps[key]) for one in shown]
        height, width = (min(image.shape[axis] for _, image in images) for axis in (1, 2))
        true_CHW = true_CHW[:, :height, :width]
        band, row, column = len(true_CHW) // 2, height // 2, width // 2
        low, high = np.percentile(true_CHW[band], (1, 99))

        def paint(axis: Axes, image_HW: NDArray[Any]) -> None:
            axis.imshow(image_HW, cmap="gray", vmin=low, vmax=high, interpolation="nearest")

        panels = [("truth", true_CHW[band]), *((name, image[band]) for name, image in images)]
        yield f"Band {band + 1} of {len(true_CHW)}.", _png(_grid(panels, paint))
        figure, (axis,) = _axes(1)
        axis.plot(true_CHW[:, row, column], color="black", linewidth=2, label="truth")
        for number, (name, image) in enumerate(images):
            axis.plot(image[:, row, column], color=_colour(number), linewidth=1, label=name)
        axis.set(xlabel="band", ylabel="value")
        axis.legend(frameon=False, fontsize=7)
        yield f"Spectrum of the pixel in row {row}, column {column}.", _png(figure)

    return figures


def roc(score_HW: NDArray[Any], target_HW: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the shares of false alarms and of targets found, over all thresholds."""
    order = np.argsort(-score_HW.ravel(), kind="stable")
    hit = target_HW.ravel()[order]
    found, false = np.cumsum(hit) / hit.sum(), np.cumsum(~hit) / (~hit).sum()
    return np.concatenate(([0.0], false)), np.concatenate(([0.0], found))


def in_order(
    found_EC: NDArray[Any], shares_EHW: NDArray[Any], true_EC: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return endmembers and abundances in the true order; as they are where numbers differ."""
    if true_EC is None or len(true_EC) != len(found_EC):
        return found_EC, shares_EHW
    order = matched(found_EC, true_EC)
    return found_EC[order], shares_EHW[order]


FIGURES: dict[str, Callable[[Benchmark, Sequence[Shown]], Figures]] = {
    "patch_classification": class_maps,
    "segmentation": class_maps,
    "change_detection": class_maps,
    "target_detection": score_maps,
    "anomaly_detection": score_maps,
    "unmixing": unmixings,
    "denoising": restorations("denoised"),
    "super_resolution": restorations("enlarged"),
}


def _grid(
    panels: Sequence[tuple[str, NDArray[Any]]], paint: Callable[[Axes, NDArray[Any]], None]
) -> Figure:
    down = -(-len(panels) // ACROSS)
    across = min(len(panels), ACROSS)
    height, width = panels[0][1].shape
    with rc_context(LOOK):
        figure = Figure(
            figsize=(SIDE * across, (SIDE * height / width + 0.35) * down),
            layout="constrained",
        )
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, (name, image) in zip(axes, panels, strict=False):
            paint(axis, image)
            axis.set_title(name.replace("HyperSIGMA ", "HyperSIGMA\n", 1), fontsize=8)
    return figure


def _axes(count: int) -> tuple[Figure, list[Axes]]:
    with rc_context(LOOK):
        figure = Figure(figsize=(7 if count == 1 else 2.6 * count, 3.2), layout="constrained")
        return figure, list(np.atleast_1d(figure.subplots(1, count)))


def _unit(spectrum_C: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(spectrum_C / np.linalg.norm(spectrum_C))


def _colour(number: int) -> Any:
    return colormaps["tab10"](number % 10)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return data_uri(buffer.getvalue())
