"""Classify a whole scene of a store into a georeferenced map: GeoTIFF and PNG."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
import torch
import xarray as xr
from pydantic import ConfigDict, PositiveInt

from hypersigma.classifier import Classifier, fit_bands, open_classifier
from hypersigma.inputs import check_scale
from hypersigma.mapping.cog import write_cog
from hypersigma.mapping.colours import draw_classes, preview_step
from hypersigma.mapping.seen import NO_CLASS as NO_CLASS
from hypersigma.mapping.seen import classes as class_output
from hypersigma.mapping.sources import kind_of, store_georeference
from hypersigma.runlog import plain_json, progress
from hypersigma.train import pick_device
from storage.schema import SchemaError
from storage.store import find_version, open_repository, open_version, scene_dataset

logger = logging.getLogger(__name__)


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
    step = preview_step(*labels.shape)
    draw_classes(png, labels[::step, ::step], classifier.classes, config.scene_id)
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
    placed = store_georeference(scene)
    layer = class_output(classes).layer
    write_cog(
        path, lambda first, last: labels[None, first:last], height=labels.shape[0],
        width=labels.shape[1], placed=placed,
        layer=dataclasses.replace(layer, tags={key: str(value) for key, value in origin.items()}),
    )  # fmt: skip
    kind = kind_of(placed)
    if kind == "none":
        logger.warning("%s has no georeference: the map is in pixels", scene.attrs["scene_id"])
    return kind


def _tiles(scene: xr.Dataset) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for number in range(scene.sizes["tile"]):
        tile = scene[["tiles", "valid"]].isel(tile=number).load()
        yield number, tile.tiles.values, tile.valid.values
