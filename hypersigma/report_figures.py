"""Curves of a run, from its records."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from storage.html import data_uri

MOST = 1500
"""Points of a curve: more than a figure has pixels across."""
LOOK: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
TRAIN, HELD_OUT, PLAIN, QUIET = "#4477aa", "#cc3311", "#888888", "#ccbb44"

type Records = Sequence[Mapping[str, float]]


def losses(records: Records) -> str:
    """Draw the losses over the steps: of training, of held-out data, and of knowing no model."""
    lines = [
        ("loss", "training", TRAIN, "-"), ("loss_mean_spectrum", "mean spectrum", PLAIN, "-"),
        ("val_loss", "held-out", HELD_OUT, "o-"),
        ("val_loss_mean_spectrum", "mean spectrum, held-out", HELD_OUT, ":"),
    ]  # fmt: skip
    figure, (axis,) = _axes(1)
    for name, label, color, style in lines:
        _curve(axis, records, name, label=label, color=color, style=style)
    axis.set(xlabel="step", ylabel="loss")
    # The first steps of a run may lie far above all others, and would flatten these.
    values = np.array([one["loss"] for one in records if one.get("loss") is not None])
    if len(values) and values.min() > 0 and values.max() > 20 * np.median(values):
        axis.set_yscale("log")
    axis.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return _png(figure)


def scores(records: Records) -> str | None:
    """Draw a classifier's share of right answers; None where there is none."""
    names = {"oa": ("training", TRAIN, "-"), "val_oa": ("held-out", HELD_OUT, "o-")}
    if not any(one.get(name) is not None for one in records for name in names):
        return None
    figure, (axis,) = _axes(1)
    for name, (label, color, style) in names.items():
        _curve(axis, records, name, label=label, color=color, style=style)
    axis.set(xlabel="step", ylabel="overall accuracy", ylim=(0, 1.02))
    axis.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return _png(figure)


def rates(records: Records) -> str:
    """Draw the learning rate and the gradient's norm over the steps."""
    figure, (left, right) = _axes(2)
    _curve(left, records, "lr", color=TRAIN)
    left.set(xlabel="step", ylabel="learning rate")
    left.set_ylim(bottom=0)
    _curve(right, records, "grad_norm", color=TRAIN)
    right.set(xlabel="step", ylabel="norm of the gradient")
    right.set_ylim(bottom=0)
    return _png(figure)


def throughput(records: Records, samples: int) -> str:
    """Draw samples a second, and the share of each step that went by waiting for data."""
    figure, (left, right) = _axes(2)
    _curve(left, records, "samples_per_s", color=TRAIN)
    left.set(xlabel="step", ylabel="samples / s")
    left.set_ylim(bottom=0)
    shares = [
        {"step": one["step"], "share": 100 * one["data_wait"] * one["samples_per_s"] / samples}
        for one in records
        if one.get("samples_per_s") and one.get("data_wait") is not None
    ]
    _curve(right, shares, "share", color=QUIET)
    right.set(xlabel="step", ylabel="waiting for data [%]", ylim=(0, 100))
    return _png(figure)


def thinned(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve with at most `most` points, each the mean of its neighbours."""
    if len(x) <= most:
        return x, y
    parts = np.array_split(np.arange(len(x)), most)
    return tuple(np.array([one[part].mean() for part in parts]) for one in (x, y))  # type: ignore[return-value]  # two of them


def _curve(
    axis: Axes, records: Records, name: str, *, color: str, label: str = "", style: str = "-"
) -> None:
    there = [one for one in records if one.get(name) is not None]
    if not there:
        return
    x = np.array([one["step"] for one in there], float)
    y = np.array([one[name] for one in there], float)
    x, y = thinned(x, y, MOST)
    axis.plot(x, y, style, color=color, label=label, linewidth=1.1, markersize=3.5)


def _axes(count: int) -> tuple[Figure, list[Axes]]:
    with rc_context(LOOK):
        figure = Figure(figsize=(9.5, 3.4 if count == 1 else 2.8), layout="constrained")
        return figure, list(np.atleast_1d(figure.subplots(1, count)))


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return data_uri(buffer.getvalue())
