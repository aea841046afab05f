"""Figures of a dataset card: where the tiles lie, what their spectra and qualities are."""

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from pipeline.catalogue.card import QUANTILES, Bands, Card
from pipeline.qa.pictures import LOOK, png
from pipeline.qa.quality import WATER_VAPOUR
from storage.footprints import outline, tile_corners
from storage.schema import SPLITS

type Floats = NDArray[np.float64]

SPLIT_COLOURS = {"train": "#004488", "val": "#ddaa33", "test": "#bb5566"}
"""Paul Tol's high contrast scheme: apart in grey and to the colour-blind."""
_FAN = ("#c9dcec", "#8db4d6", "#004488")
"""From the outer quantiles to the median."""
_WIDTH = 10.5
"""Of a figure [in]."""
_WIDE = 8.0
"""A map of more degrees shows tiles as points: their outlines would be too small to be seen."""
_MANY = 50_000
"""More tiles are shown as points, too."""
_MANY_SCENES = 200
"""Outlines of more scenes would hide the points."""
_PIXELS = 1000
"""Of a map's longer side, about."""
_GAP = 3.0
"""Times the median step of wavelength, from which on no line is drawn between two bands."""


def footprints(card: Card) -> bytes | None:
    """Draw the tiles by split on a graticule; None if no place is known."""
    place = {n: card.tiles[n].to_numpy() for n in card.tiles.column_names if n not in _TEXT}
    corners = _together(tile_corners(place))
    centres = _together(np.column_stack([place["lon"], place["lat"]])[:, None])[:, 0]
    known = np.isfinite(centres).all(axis=1)
    if not known.any():
        return None
    split = np.asarray(card.tiles["split"].to_numpy())
    shown = corners[np.isfinite(corners).all(axis=(1, 2))]
    extent = np.ptp(centres[known], axis=0).max()
    filled = bool(card.outlined and 0 < len(shown) <= _MANY and extent <= _WIDE)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(_WIDTH, 6.6), layout="constrained")
        axis = figure.subplots()
        if filled:
            for name in SPLITS:
                colour = SPLIT_COLOURS[name]
                here = corners[known & (split == name)]
                face = (colour, 0.55)
                axis.add_collection(PolyCollection(here, facecolor=face, edgecolor=colour, lw=0.8))
        else:
            _points(axis, centres[known], split[known], float(extent))
        points = corners if filled else centres[:, None]
        if outlines := len(card.scenes) <= _MANY_SCENES:
            _scenes(axis, card.tiles, points)
        _graticule(axis, points[known].reshape(-1, 2))
        handles = _legend(split, filled=filled)[: None if outlines else len(SPLITS)]
        axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
        return png(figure)


def fan(bands: Bands) -> bytes:
    """Draw the quantiles of a sensor's spectra by wavelength."""
    order = np.argsort(bands.wavelength, kind="stable")
    nm, levels = bands.wavelength[order], bands.quantiles[:, order]
    steps = np.diff(nm)
    gaps = 1 + np.flatnonzero(steps > _GAP * np.median(steps)) if steps.size else np.zeros(0, int)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
        axis = figure.subplots()
        for start, stop in WATER_VAPOUR:
            axis.axvspan(start, stop, color="#ededed", lw=0, zorder=-1)
        for part in np.split(np.arange(nm.size), gaps):
            for low, high, colour in ((0, 4, _FAN[0]), (1, 3, _FAN[1])):
                axis.fill_between(
                    nm[part], levels[low, part], levels[high, part], color=colour, lw=0
                )
            axis.plot(nm[part], levels[2, part], color=_FAN[2], lw=1.4)
        axis.set(xlabel="wavelength [nm]", ylabel=_QUANTITIES.get(bands.units, bands.units))
        axis.set_xlim(nm.min() - 30, nm.max() + 30)
        _frame(axis, nm, levels)
        figure.legend(handles=_fan_legend(), loc="outside right upper", frameon=False)
        return png(figure)


def histograms(card: Card) -> bytes | None:
    """Draw how often each quality column has which value, by split; None without any."""
    found = {name: card.tiles[name].to_numpy().astype("f8") for name in card.quality}
    found = {name: values for name, values in found.items() if np.isfinite(values).any()}
    if not found:
        return None
    split = np.asarray(card.tiles["split"].to_numpy())
    columns = 3
    rows = -(-len(found) // columns)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(_WIDTH, 2.2 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, (name, values) in zip(axes, found.items(), strict=False):
            _histogram(axis, name, values, split)
        for axis in axes[len(found) :]:
            axis.set_axis_off()
        for axis in axes[::columns]:
            axis.set_ylabel("tiles")
        handles = [Patch(color=SPLIT_COLOURS[name], label=name) for name in SPLITS]
        figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)
        return png(figure)


_TEXT = ("tile_id", "scene_id", "sensor", "split")
_QUANTITIES = {
    "1": "reflectance [1]",
    "W m-2 sr-1 um-1": "radiance [W m$^{-2}$ sr$^{-1}$ µm$^{-1}$]",
    "DN": "digital number",
}


def _histogram(axis: Axes, name: str, values: Floats, split: NDArray[np.str_]) -> None:
    known = np.isfinite(values)
    low, high = (0.0, 1.0) if name.endswith("_fraction") else _span(values[known])
    parts = [values[known & (split == part)] for part in SPLITS]
    axis.hist(
        parts, bins=25, range=(low, high), stacked=True, color=list(SPLIT_COLOURS.values()), lw=0
    )
    unknown = int((~known).sum())
    axis.set_title(name + (f"  ({unknown} unknown)" if unknown else ""), loc="left")
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _span(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _together(points: Floats) -> Floats:
    """Bring points (tile, point, 2) on both sides of the date line to one side."""
    lon = points[..., 0]
    known = lon[np.isfinite(lon)]
    if known.size and np.ptp(known) > 180 and np.ptp(known % 360) < 180:
        points = np.stack([lon % 360, points[..., 1]], axis=-1)
    return points


def _points(axis: Axes, places: Floats, split: NDArray[np.str_], extent: float) -> None:
    """Draw centres (tile, 2) as points, one a pixel and split, none of the splits on top."""
    code = np.select([split == name for name in SPLITS], range(len(SPLITS)))
    cell = np.round(places / max(extent, 1e-3) * _PIXELS).astype(np.int64)
    _, first = np.unique(np.column_stack([cell, code]), axis=0, return_index=True)
    first = np.random.default_rng(0).permutation(first)
    colours = np.array([SPLIT_COLOURS[name] for name in SPLITS])[code[first]]
    lon, lat = places[first].T
    axis.scatter(lon, lat, s=9 if len(first) < 2000 else 3, c=colours.tolist(), lw=0)


def _scenes(axis: Axes, tiles: pa.Table, points: Floats) -> None:
    """Outline each scene."""
    code = tiles["scene_id"].combine_chunks().indices.to_numpy()
    for number in np.unique(code):
        ring = outline(points[code == number].reshape(-1, 2))
        if len(ring) > 2:
            axis.plot(*np.vstack([ring, ring[:1]]).T, color="#333333", lw=0.9, ls=(0, (4, 2)))


def _graticule(axis: Axes, points: Floats) -> None:
    (west, south), (east, north) = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    middle = np.cos(np.radians(np.clip((south + north) / 2, -80, 80)))
    margin = 0.06 * max((east - west) * middle, north - south, 0.02)
    axis.set_xlim(west - margin / middle, east + margin / middle)
    axis.set_ylim(south - margin, north + margin)
    axis.set_aspect(1 / middle)
    axis.grid(color="#d9dfe6", lw=0.6)
    axis.set_axisbelow(True)
    for side, letters in ((axis.xaxis, "EW"), (axis.yaxis, "NS")):
        side.set_major_locator(MaxNLocator(6))
        side.set_major_formatter(FuncFormatter(lambda value, _, way=letters: _degrees(value, way)))
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color("#aab4bf")


def _degrees(value: float, letters: str) -> str:
    if letters == "EW":
        value = (value + 180) % 360 - 180
    return f"{abs(value):.4g}° {letters[0] if value >= 0 else letters[1]}".replace("° ", "°\u2009")


def _legend(split: NDArray[np.str_], *, filled: bool) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = []
    for name in SPLITS:
        label = f"{name} ({int((split == name).sum())} tiles)"
        colour = SPLIT_COLOURS[name]
        if filled:
            handles.append(Patch(facecolor=(colour, 0.55), edgecolor=colour, label=label))
        else:
            handles.append(Line2D([], [], marker="o", ls="", ms=5, color=colour, label=label))
    handles.append(
        Line2D([], [], color="#333333", lw=0.9, ls=(0, (4, 2)), label="scene's kept tiles")
    )
    return handles


def _fan_legend() -> list[Patch | Line2D]:
    low, lower, _, upper, high = (f"{100 * level:.0f}" for level in QUANTILES)
    return [
        Line2D([], [], color=_FAN[2], lw=1.4, label="median"),
        Patch(color=_FAN[1], label=f"{lower} to {upper} %"),
        Patch(color=_FAN[0], label=f"{low} to {high} %"),
        Patch(color="#ededed", label="water vapour"),
    ]


def _frame(axis: Axes, nm: Floats, levels: Floats) -> None:
    """Fit the axis to the bands outside of water vapour, where noise is divided by little light."""
    dark = np.any([(nm >= low) & (nm <= high) for low, high in WATER_VAPOUR], axis=0)
    seen = levels[:, ~dark]
    seen = seen[np.isfinite(seen)]
    if seen.size:
        low, high = min(0.0, float(np.quantile(seen, 0.01))), float(seen.max())
        axis.set_ylim(low, high + 0.06 * (high - low or 1))
