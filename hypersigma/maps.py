"""Classify a whole scene into a georeferenced map: GeoTIFF and PNG.

The only module of the trainer that knows rasterio.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import matplotlib.patches
import matplotlib.pyplot as plt
import numpy as np
import pydantic.dataclasses
import rasterio
import rasterio.control
import rasterio.crs
import rasterio.errors
import rasterio.rpc
import rasterio.transform
import torch
import xarray as xr
from pydantic import ConfigDict, PositiveInt

from hypersigma.classifier import Classifier, fit_bands, open_classifier
from hypersigma.inputs import check_scale
from hypersigma.runlog import plain_json, progress
from hypersigma.train import pick_device
from storage.schema import TILE_SIZE, SchemaError
from storage.store import find_version, open_repository, open_version, scene_dataset

logger = logging.getLogger(__name__)

NO_CLASS = 0
"""Value of a pixel without a measurement."""
COLOURS = (
    (0, 90, 181), (17, 119, 51), (221, 204, 119), (204, 102, 119), (136, 204, 238),
    (170, 68, 153), (153, 153, 51), (136, 34, 85), (68, 170, 153), (102, 51, 0),
    (230, 159, 0), (213, 94, 0), (0, 158, 115), (240, 228, 66), (86, 180, 233),
    (204, 121, 167), (51, 34, 136), (153, 79, 0), (100, 100, 100), (180, 180, 180),
)  # fmt: skip
"""Red, green, blue of class 1, 2, ...; told apart by colour-blind readers as far as that goes."""
PREVIEW_PIXELS = 1200
"""Longest side of the preview's image."""
MIN_GCPS = 4


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PredictConfig:
    """What `hypersigma-train predict` reads."""

    checkpoint: Path
    """A fine-tuning run (its best checkpoint), one checkpoint, or an export."""
    store: str
    """The tile store that `hypersigma-data build` wrote: a folder or URL."""
    scene_id: str
    """Which scene of it."""
    out: Path
    """Folder to write `<scene_id>.tif`, `.png` and `.json` into."""
    version: str | None = None
    """Tag of the store's version; null: the newest."""
    batch_size: PositiveInt = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"


def predict(config: PredictConfig) -> dict[str, Any]:
    """Give every measured pixel of a scene a class; write the map and return what is in it.

    Holds one tile and the map (one byte a pixel) in memory.

    Raises:
        SchemaError: No such scene, or its sensor, bands or units do not fit the checkpoint.
        CheckpointError: There is no whole checkpoint of a fine-tuning run.
    """
    classifier = open_classifier(config.checkpoint, pick_device(config.device))
    scene = scene_dataset(open_version(config.store, config.version), config.scene_id)
    classifier, bands = check_scene(scene, classifier)
    labels = classify_scene(classifier, scene, batch_size=config.batch_size)
    config.out.mkdir(parents=True, exist_ok=True)
    stem = config.out / config.scene_id
    tif, png = (stem.with_name(stem.name + suffix) for suffix in (".tif", ".png"))
    version = find_version(open_repository(config.store), config.version)
    origin = {
        "scene_id": config.scene_id,
        "store": config.store,
        "version": version.tag,
        "snapshot": version.snapshot,
        "checkpoint": str(classifier.folder),
        "step": classifier.state["step"],
        "mode": classifier.state["config"]["mode"],
        **({"bands": bands} if bands else {}),
    }
    georeference = write_geotiff(tif, labels, scene, classifier.classes, origin)
    write_preview(png, labels, classifier.classes, title=config.scene_id)
    counts = np.bincount(labels.ravel(), minlength=len(classifier.classes) + 1)
    result = {
        **origin,
        "map": str(tif),
        "preview": str(png),
        "georeference": georeference,
        "height": labels.shape[0],
        "width": labels.shape[1],
        "pixels": int(counts[1:].sum()),
        "per_class": {
            name: int(count) for name, count in zip(classifier.classes, counts[1:], strict=True)
        },
    }
    stem.with_name(stem.name + ".json").write_text(plain_json(result), encoding="utf-8")
    return result


def check_scene(scene: xr.Dataset, classifier: Classifier) -> tuple[Classifier, str]:
    """Return the classifier for a scene's bands, and in words how it comes to them (`fit_bands`).

    Raises:
        SchemaError: The scene's sensor or units are not those that the model was trained on, or
            its bands reach too few of those.
    """
    contract, where = classifier.contract, f"scene {scene.attrs['scene_id']}"
    if scene.attrs["sensor"] != contract.sensor:
        raise SchemaError(
            f"{where}: expected a scene of sensor {contract.sensor}, as the checkpoint was trained "
            f"on, got {scene.attrs['sensor']}"
        )
    check_scale(float(scene.attrs["scale"]), str(scene.attrs["units"]), contract, where=where)
    return fit_bands(classifier, scene.wavelength.values.tolist(), where=where)


def classify_scene(classifier: Classifier, scene: xr.Dataset, *, batch_size: int) -> np.ndarray:
    """Return the map (y, x) uint8 on the scene's source grid: class 1..K, 0 where no tile is."""
    rows, cols = scene.row.values, scene.col.values
    labels = np.zeros(scene.attrs["shape"], np.uint8)
    wavelength_C = torch.tensor(scene.wavelength.values, dtype=torch.float32)
    with progress(_tiles(scene), total=scene.sizes["tile"], title="tiles classified") as tiles:
        for number, stored, valid in tiles:
            y, x = np.nonzero(valid)
            found = classifier.classify(
                torch.from_numpy(stored), wavelength_C, y, x, batch_size=batch_size
            )
            labels[rows[number] + y, cols[number] + x] = found + 1
    return labels


def write_geotiff(
    path: Path, labels: np.ndarray, scene: xr.Dataset, classes: list[str], origin: dict[str, Any]
) -> str:
    """Write a map with its georeference, class names and colours; return the kind of georeference.

    Returns:
        `crs` (grid of a map product), `rpc` (rational polynomials), `gcp` (a ground point a tile),
        or `none`.
    """
    kind, placed = georeference(scene)
    height, width = labels.shape
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8",
        "nodata": NO_CLASS, "photometric": "palette", "compress": "deflate", "tiled": True,
        "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    with warnings.catch_warnings():
        # Said once in words by `georeference`.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        target = rasterio.open(path, "w", **profile, **placed)
    with target:
        colours = {number: (*colour(number), 255) for number in range(1, len(classes) + 1)}
        target.write_colormap(1, {NO_CLASS: (0, 0, 0, 0), **colours})
        target.write(labels, 1)
        names = {f"class_{number}": name for number, name in enumerate(classes, start=1)}
        target.update_tags(1, **names)
        target.update_tags(**{key: str(value) for key, value in origin.items()})
        target.set_band_description(1, "class")
    return kind


def georeference(scene: xr.Dataset) -> tuple[str, dict[str, Any]]:
    """Return the kind of a scene's georeference, and it as keywords for `rasterio.open`."""
    attrs = scene.attrs
    if attrs.get("crs") and attrs.get("transform"):
        grid = rasterio.transform.Affine(*attrs["transform"][:6])
        return "crs", {"crs": attrs["crs"], "transform": grid}
    if attrs.get("rpc"):
        return "rpc", {"rpcs": rasterio.rpc.RPC(**attrs["rpc"])}
    points = [
        rasterio.control.GroundControlPoint(row=row, col=col, x=lon, y=lat)
        for row, col, lon, lat in zip(
            scene.row.values + TILE_SIZE / 2, scene.col.values + TILE_SIZE / 2,
            scene.lon.values, scene.lat.values, strict=True,
        )
        if math.isfinite(lon) and math.isfinite(lat)
    ]  # fmt: skip
    if len(points) >= MIN_GCPS:
        return "gcp", {"gcps": points, "crs": rasterio.crs.CRS.from_epsg(4326)}
    logger.warning("%s has no georeference: the map is in pixels", attrs["scene_id"])
    return "none", {}


def write_preview(path: Path, labels: np.ndarray, classes: list[str], *, title: str) -> None:
    """Draw a map with its legend as PNG."""
    step = max(1, math.ceil(max(labels.shape) / PREVIEW_PIXELS))
    palette = np.array([(255, 255, 255), *(colour(n) for n in range(1, len(classes) + 1))])
    height, width = labels.shape
    side = 8 * np.array([width, height]) / max(height, width)
    figure, axis = plt.subplots(figsize=(max(side[0], 2) + 2.4, max(side[1], 2.4) + 0.5))
    axis.imshow(palette.astype(np.uint8)[labels[::step, ::step]], interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
    handles = [
        matplotlib.patches.Patch(color=tuple(palette[number] / 255), label=name)
        for number, name in enumerate(classes, start=1)
    ]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def colour(number: int) -> tuple[int, int, int]:
    """Return the colour of class `number`, counted from 1; after 20 classes they come again."""
    return COLOURS[(number - 1) % len(COLOURS)]


def _tiles(scene: xr.Dataset) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for number in range(scene.sizes["tile"]):
        tile = scene[["tiles", "valid"]].isel(tile=number).load()
        yield number, tile.tiles.values, tile.valid.values
