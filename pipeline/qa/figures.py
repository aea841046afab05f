"""Charts of a scene's page: by wavelength, by detector, by value."""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.qa.pictures import COLOURS, LOOK, png
from pipeline.qa.quality import BandTable, Detectors, Floats, Pixels, Preview, Smile

DETECTOR_COLOURS = {"VNIR": "#4477aa", "SWIR": "#cc3311"}
SHADES = {"not calibrated": "#e3e3e3", "water vapour": "#d5effa", "gain <= 0": "#f0b7a8"}
"""In the order they are drawn in."""
BAND_COLOURS = {
    "blue": "#4477aa", "green": "#228833", "red": "#cc3311", "nir": "#aa3377",
    "swir1": "#ee7733", "swir2": "#777777",
}  # fmt: skip
PARTLY_DEAD = 0.01
"""Share of dead rows from which on a detector is shown [1]."""
_MARGIN = 60.0
"""Of the axis beyond the stored bands [nm]: most of the bands that are left out there."""
type Shaded = Mapping[str, tuple[tuple[float, float], ...]]


def snr(bands: BandTable, shaded: Shaded) -> bytes:
    """Show signal over noise by wavelength, the detectors apart."""

    def draw(axis: Axes) -> None:
        for name, place in _detectors(bands.detector):
            _line(axis, bands.wavelength[place], bands.snr[place], name)
        axis.set(ylabel="signal / noise [1]", yscale="log")
        # Below 1 there is no signal: not worth the room.
        axis.set_ylim(bottom=max(1.0, axis.get_ylim()[0]))

    return _by_wavelength(draw, bands.wavelength, shaded)


def stripes(bands: BandTable, shaded: Shaded) -> bytes:
    """Show the stripe index by wavelength, as delivered and after the steps."""

    def draw(axis: Axes) -> None:
        for name, place in _detectors(bands.detector):
            color = DETECTOR_COLOURS.get(name, "#222222")
            nm = bands.wavelength[place]
            before = with_gaps(nm, bands.stripes_before[place])
            after = with_gaps(nm, bands.stripes_after[place])
            axis.plot(*before, ":", lw=1.2, marker=".", ms=3,
                      color=color, alpha=0.7, label=f"{name}, as delivered")  # fmt: skip
            axis.plot(*after, lw=1.2, color=color,
                      label=f"{name}, after the steps")  # fmt: skip
        both = np.concatenate([bands.stripes_before, bands.stripes_after])
        axis.set(ylabel="stripe index [1]")
        if (both[np.isfinite(both)] > 0).any():
            axis.set_yscale("log")

    return _by_wavelength(draw, bands.wavelength, shaded)


def spectra(pixels: Pixels, bands: BandTable, shaded: Shaded, quantity: str) -> bytes:
    """Show the representative pixels' spectra, with bands not to be trusted shaded."""

    def draw(axis: Axes) -> None:
        for i, values in enumerate(pixels.values):
            color = COLOURS[i % len(COLOURS)]
            label = f"{i + 1}  ({pixels.share[i]:.0%})"
            for name, place in _detectors(bands.detector):
                axis.plot(*with_gaps(bands.wavelength[place], values[place]), lw=1.1, color=color,
                          label=label if name == bands.detector[0] else None)  # fmt: skip
        trusted = ~_inside(bands.wavelength, shaded)
        shown = pixels.values[:, trusted]
        shown = shown[np.isfinite(shown)]
        if shown.size:
            low, high = float(np.percentile(shown, 0.2)), float(shown.max())
            margin = 0.06 * (high - low or 1)
            axis.set_ylim(min(low, 0) - margin * (low < 0), high + margin)
        axis.set(ylabel=quantity)

    return _by_wavelength(draw, bands.wavelength, shaded, height=3.8)


def histograms(preview: Preview, quantity: str) -> bytes:
    """Show how often the stored values are found in some bands."""
    with mpl.rc_context(LOOK):
        figure, axis = _figure(3.0)
        found = _finite(preview)
        edges = _edges(found)
        for name, values in found.items():
            share = np.histogram(values, edges)[0] / values.size
            axis.stairs(
                100 * share, edges, lw=1.3, color=BAND_COLOURS[name],
                label=f"{name}, {preview.wavelength[name]:.0f} nm",
            )  # fmt: skip
        axis.set(xlabel=quantity, ylabel="pixels in a bin [%]")
        axis.set_ylim(bottom=0)
        figure.legend(loc="outside right upper", frameon=False)
        return png(figure)


def detectors(found: Detectors, bands: BandTable) -> bytes:
    """Show which columns of which bands are dead or stuck."""
    with mpl.rc_context(LOOK):
        figure, axis = _figure(4.2)
        partly = (found.dead > PARTLY_DEAD) & ~found.bad
        for place, color, size, words in (
            (partly, "#ccbb44", 3, "dead in over 1 % of the rows"),
            (found.bad, "#cc3311", 9, "dead or stuck"),
        ):
            band, column = np.nonzero(place)
            if not len(band):
                continue
            label = f"{words} ({len(band)})"
            axis.scatter(column, band, s=size, marker="s", color=color, label=label, linewidths=0)
        axis.set(xlim=(-1, found.bad.shape[1]), ylim=(len(bands.number) - 0.5, -0.5))
        _band_ticks(axis, bands)
        axis.set(xlabel="column [pixel]", ylabel="band (wavelength [nm])")
        figure.legend(loc="outside right upper", frameon=False)
        return png(figure)


def smile(found: Smile) -> bytes:
    """Show how far the columns' wavelengths are from the bands', by band and by column."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(10.5, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        columns = np.arange(found.deviation.shape[1])
        for name, place in _detectors(found.detector):
            color = DETECTOR_COLOURS.get(name, "#222222")
            nm, away = found.wavelength[place], found.deviation[place]
            left.fill_between(nm, away.min(axis=1), away.max(axis=1), color=color, alpha=0.5,
                              linewidth=0, label=name)  # fmt: skip
            middle = len(nm) // 2
            right.plot(columns, away[middle], color=color, label=f"{name}, {nm[middle]:.0f} nm")
        left.set(xlabel="wavelength [nm]", ylabel="deviation, all columns [nm]")
        right.set(xlabel="column [pixel]", ylabel="deviation [nm]")
        for axis in (left, right):
            axis.axhline(0, color="#999999", lw=0.6)
            axis.legend(frameon=False)
        return png(figure)


def _by_wavelength(
    draw: Callable[[Axes], None], wavelength: Floats, shaded: Shaded, *, height: float = 3.0
) -> bytes:
    with mpl.rc_context(LOOK):
        figure, axis = _figure(height)
        draw(axis)
        low, high = _limits(wavelength)
        for reason in (name for name in SHADES if name in shaded):
            seen = [pair for pair in shaded[reason] if pair[1] > low and pair[0] < high]
            for i, (start, stop) in enumerate(seen):
                axis.axvspan(start, stop, color=SHADES[reason], lw=0, zorder=-1,
                             label=None if i else reason)  # fmt: skip
        axis.set(xlabel="wavelength [nm]", xlim=(low, high))
        figure.legend(loc="outside right upper", frameon=False)
        return png(figure)


def _limits(wavelength: Floats) -> tuple[float, float]:
    known = wavelength[np.isfinite(wavelength)].tolist() or [400.0, 2500.0]
    return min(known) - _MARGIN, max(known) + _MARGIN


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10.5, height), layout="constrained")
    return figure, figure.subplots()


def _detectors(detector: NDArray[np.str_]) -> list[tuple[str, NDArray[np.intp]]]:
    return [(n, np.flatnonzero(detector == n)) for n in dict.fromkeys(detector.tolist())]


def with_gaps(wavelength: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return both (band) with a NaN wherever bands are left out, so that no line is drawn there."""
    steps = np.diff(wavelength)
    gaps = 1 + np.flatnonzero(steps > 3 * np.median(steps)) if steps.size else np.zeros(0, int)
    return np.insert(wavelength, gaps, np.nan), np.insert(values, gaps, np.nan)


def _line(axis: Axes, wavelength: Floats, values: Floats, name: str) -> None:
    color = DETECTOR_COLOURS.get(name, "#222222")
    axis.plot(*with_gaps(wavelength, values), lw=1.2, marker=".", ms=3, color=color, label=name)


def _inside(wavelength: Floats, shaded: Shaded) -> NDArray[np.bool_]:
    ranges = [pair for each in shaded.values() for pair in each]
    return np.any([np.zeros(wavelength.shape, bool)]
                  + [(wavelength >= a) & (wavelength <= b) for a, b in ranges], axis=0)  # fmt: skip


def _finite(preview: Preview) -> dict[str, NDArray[Any]]:
    found = {name: image[np.isfinite(image)] for name, image in preview.images.items()}
    return {name: values for name, values in found.items() if values.size}


def _edges(found: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Return edges of about 120 bins over nearly all values of all bands."""
    limits = [np.percentile(values, (0.1, 99.9)) for values in found.values()]
    low = min((float(each[0]) for each in limits), default=0.0)
    high = max((float(each[1]) for each in limits), default=1.0)
    high = high if high > low else low + 1
    if all((values % 1 == 0).all() for values in found.values()):
        # As many whole numbers in each bin, or the bins would beat with the counts.
        return np.arange(np.floor(low), high + 1, np.ceil((high - low) / 120)) - 0.5
    return np.linspace(low, high, 121)


def _band_ticks(axis: Axes, bands: BandTable) -> None:
    places = np.unique(np.linspace(0, len(bands.number) - 1, 10).round().astype(int))
    labels = [f"{bands.number[i]} ({bands.wavelength[i]:.0f})" for i in places.tolist()]
    axis.set_yticks(places, labels)
