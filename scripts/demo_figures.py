"""Figures of the demo page: what the data look like, what the models learnt, what is mapped."""

import io
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import rasterio
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from pipeline.readers import find_scenes, open_scene
from pipeline.readers.names import scene_id_of_name
from storage import store
from storage.html import data_uri
from storage.index import read_index

mpl.use("Agg")
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

RGB_NM = (650.0, 550.0, 470.0)
SPLIT_COLORS = {"train": "#4477aa", "val": "#ccbb44", "test": "#cc3311"}
CLASS_COLORS = ("#228833", "#ccbb44", "#4477aa", "#aa7744", "#999999", "#ee6677")
CLASS_MAP = ListedColormap(["white", *CLASS_COLORS])


def as_data_uri(figure: Figure) -> str:
    """Return the figure as a PNG inside a data URI, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return data_uri(buffer.getvalue())


def quicklooks(root: Path) -> Figure:
    """Show every raw product in true colour, as delivered."""
    scenes = [open_scene(path) for path in find_scenes(root / "raw")]
    figure, axes = plt.subplots(1, len(scenes), figsize=(2.4 * len(scenes), 3.2))
    for axis, scene in zip(np.atleast_1d(axes), scenes, strict=True):
        axis.imshow(true_colour(scene))
        axis.set_title(f"{scene.platform} {scene.level}\n{scene.acquired[:10]}", fontsize=8)
        axis.axis("off")
    return figure


def true_colour(scene: xr.Dataset) -> np.ndarray[Any, Any]:
    """Return (y, x, 3) uint8: radiance at red, green and blue, stretched to its 2-98 %."""
    nearest = [int(np.abs(scene.wavelength.values - nm).argmin()) for nm in RGB_NM]
    bands = scene.isel(band=nearest)
    dn = bands.dn.transpose("y", "x", "band").values.astype("float32")
    radiance = dn * bands.gain.values.astype("float32") + bands.offset.values.astype("float32")
    empty = (dn == scene.attrs["nodata"]).all(axis=-1) | (dn < 0).any(axis=-1)
    low, high = np.percentile(radiance[~empty], (2, 98), axis=0)
    stretched = np.clip((radiance - low) / (high - low), 0, 1)
    stretched[empty] = 1
    return (255 * stretched).astype("uint8")


def spectra(root: Path) -> Figure:
    """Show one pixel of each class: DN as delivered, reflectance as stored, and the truth."""
    group = store.open_version(str(root / "store"))
    scene_id = _first_scene(root, "hyperion")
    tiles = store.scene_dataset(group, scene_id)
    labels = np.load(root / "raw/truth/labels" / f"{scene_id}.npy")
    names = json.loads((root / "raw/truth/labels/classes.json").read_text())
    truth = np.load(root / "raw/truth" / f"{scene_id}.npz")
    raw = _raw_scene(root, scene_id)
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.4))
    for number, name in enumerate(names, 1):
        found = _pixel_of_class(tiles, labels, number)
        if found is None:
            continue
        tile, y, x = found
        row, col = int(tiles.row[tile]) + y, int(tiles.col[tile]) + x
        color = CLASS_COLORS[number - 1]
        axes[0].plot(raw.wavelength, raw.dn[:, row, col].values, ".", ms=2, color=color)
        stored = tiles.tiles[tile].values[:, y, x]
        axes[1].plot(tiles.wavelength, stored, ".", ms=2.5, color=color, label=name)
        true = truth["reflectance"].T @ truth["abundance"][:, row, col].astype("float32")
        axes[2].plot(truth["wavelength"], true, ".", ms=2, color=color)
    for axis, title in zip(
        axes, ("DN, as delivered", "TOA reflectance, as stored", "surface, truth"), strict=True
    ):
        axis.set(title=title, xlabel="wavelength [nm]")
    axes[1].set_ylim(0, 0.8)
    axes[2].set_ylim(0, 0.8)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right", markerscale=4)
    return figure


def split_map(root: Path) -> Figure:
    """Show where the tiles of version 2 lie and which split each belongs to."""
    index = read_index(store.open_version(str(root / "store"))).to_pandas()
    figure, axis = plt.subplots(figsize=(6, 4))
    for name, part in index.groupby("split"):
        label = f"{name} ({len(part)} tiles)"
        axis.plot(part.lon, part.lat, "s", ms=4, color=SPLIT_COLORS[name], label=label)
    axis.set(xlabel="longitude [deg]", ylabel="latitude [deg]", title="tiles and their splits")
    axis.legend()
    return figure


def losses(root: Path) -> Figure:
    """Show both autoencoders' loss beside that of a mean-spectrum predictor."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 3.4))
    for axis, kind in zip(axes, ("spatial", "spectral"), strict=True):
        log = read_jsonl(root / f"runs/{kind}/metrics.jsonl")
        steps = [line for line in log if "loss" in line]
        x = [line["step"] for line in steps]
        axis.plot(x, [s["loss"] for s in steps], lw=0.5, color="#4477aa", alpha=0.5)
        axis.plot(x, smooth([s["loss"] for s in steps]), color="#4477aa", label="loss")
        mean = smooth([s["loss_mean_spectrum"] for s in steps])
        axis.plot(x, mean, "--", color="#999999", label="mean-spectrum predictor")
        held = [line for line in log if "val_loss" in line]
        style = {"color": "#cc3311", "label": "held-out"}
        axis.plot([h["step"] for h in held], [h["val_loss"] for h in held], "o-", **style)
        axis.set(title=f"{kind} masked autoencoder", xlabel="step", yscale="log")
        axis.legend()
    return figure


def confusion(metrics: dict[str, Any]) -> Figure:
    """Show a classifier's confusion matrix: rows are the truth, as shares of it."""
    names = [row["name"] for row in metrics["per_class"]]
    counts = np.array(metrics["confusion"], float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axis = plt.subplots(figsize=(4.6, 4.2))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, col), share in np.ndenumerate(shares):
        color = "white" if share > 0.5 else "black"
        axis.text(col, row, f"{share:.2f}", ha="center", va="center", color=color, fontsize=8)
    ticks = range(len(names))
    axis.set_xticks(ticks, names, rotation=40, ha="right")
    axis.set_yticks(ticks, names)
    axis.set(xlabel="predicted", ylabel="truth", title="spatial + spectral")
    return figure


def map_panel(root: Path, made: dict[str, Any]) -> Figure:
    """Show a mapped scene: true colour, true classes, predicted ones, and where they differ."""
    scene_id = made["scene_id"]
    with rasterio.open(made["map"]) as file:
        predicted = file.read(1)
    raw = _raw_scene(root, scene_id)
    labels = np.load(root / "raw/truth/labels" / f"{scene_id}.npy")
    names = json.loads((root / "raw/truth/labels/classes.json").read_text())
    known = (labels > 0) & (predicted > 0)
    wrong = np.where(known, np.where(labels == predicted, 1, 2), 0)
    figure, axes = plt.subplots(1, 4, figsize=(13, 4.4))
    axes[0].imshow(true_colour(raw))
    axes[1].imshow(labels, cmap=CLASS_MAP, vmin=0, vmax=6, interpolation="nearest")
    axes[2].imshow(predicted, cmap=CLASS_MAP, vmin=0, vmax=6, interpolation="nearest")
    errors = ListedColormap(["white", "#dddddd", "#cc3311"])
    axes[3].imshow(wrong, cmap=errors, vmin=0, vmax=2, interpolation="nearest")
    agreement = (labels == predicted)[known].mean()
    titles = ("true colour", "truth", "predicted", f"differs (agrees: {agreement:.1%})")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.axis("off")
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=color, label=name)
        for color, name in zip(CLASS_COLORS, names, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    return figure


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return a run's log, one dict a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def smooth(values: list[float], width: int = 20) -> list[float]:
    """Return the running mean over the last `width` values."""
    return [float(np.mean(values[max(0, i - width + 1) : i + 1])) for i in range(len(values))]


def _raw_scene(root: Path, scene_id: str) -> xr.Dataset:
    path = next(p for p in find_scenes(root / "raw") if scene_id_of_name(p) == scene_id)
    return open_scene(path)


def _first_scene(root: Path, sensor: str) -> str:
    index = read_index(store.open_version(str(root / "store"))).to_pandas()
    return str(index[index.sensor == sensor].scene_id.iloc[0])


def _pixel_of_class(
    tiles: xr.Dataset, labels: np.ndarray[Any, Any], number: int
) -> tuple[int, int, int] | None:
    """Return (tile, y, x) of the first stored pixel whose 5 x 5 neighbours are all of the class."""
    for tile in range(tiles.sizes["tile"]):
        row, col = int(tiles.row[tile]), int(tiles.col[tile])
        window = labels[row : row + 64, col : col + 64] == number
        pure = np.lib.stride_tricks.sliding_window_view(window, (5, 5)).all(axis=(2, 3))
        if pure.any():
            y, x = np.argwhere(pure)[0] + 2
            return tile, int(y), int(x)
    return None
