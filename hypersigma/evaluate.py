"""How well a fine-tuned classifier does on a split that it was not trained on."""

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict, PositiveInt

from hypersigma.classifier import Classifier, classify_pixels, open_classifier, pixel_spectra
from hypersigma.controls import logistic_regression, nearest_mean
from hypersigma.finetune import TRAINING_PIXELS_FILE
from hypersigma.inputs import check_scale, check_wavelengths
from hypersigma.metrics import classification_report, confusion_matrix
from hypersigma.pixels import Pixels, draw, labelled, read_classes
from hypersigma.runfolder import data_version
from hypersigma.runlog import plain_json
from hypersigma.train import pick_device
from storage.schema import SchemaError
from storage.stream import ShardSet, open_shards

logger = logging.getLogger(__name__)


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class EvaluateConfig:
    """What `hypersigma-train evaluate` reads."""

    checkpoint: Path
    """A fine-tuning run (its best checkpoint), one checkpoint, or an export."""
    shards: Path
    """A folder that `hypersigma-data shards` wrote."""
    labels: Path
    """A folder with `classes.json` and `<scene_id>.npy` rasters, 0 = unlabelled."""
    out: Path | None = None
    """The JSON file to write; null: `metrics.json` in the folder that `checkpoint` names."""
    split: Literal["val", "test"] = "test"
    max_pixels: PositiveInt | None = None
    """Draw at most so many of the split's labelled pixels; null: all."""
    seed: int = 0
    """What they are drawn from."""
    batch_size: PositiveInt = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Classify the split's labelled pixels; write and return the numbers.

    Beside the model's stand those of two classical controls that were given the same training
    pixels' spectra: the nearest class mean, and a logistic regression.

    Raises:
        SchemaError: The shards' bands or units are not the checkpoint's, or labels are missing.
        CheckpointError: There is no whole checkpoint of a fine-tuning run.
    """
    classifier = open_classifier(config.checkpoint, pick_device(config.device))
    shards = open_shards(config.shards)
    check_shards(shards, classifier)
    classes = read_classes(config.labels)
    if classes != classifier.classes:
        raise SchemaError(
            f"{config.labels}: expected the checkpoint's classes {classifier.classes}, "
            f"got {classes}"
        )
    sensor = classifier.contract.sensor
    every = labelled(shards, config.labels, sensor=sensor, split=config.split)
    pixels = draw(every, config.max_pixels, seed=config.seed)
    found = classify_pixels(classifier, shards, pixels, batch_size=config.batch_size)
    result = {
        "checkpoint": str(classifier.folder),
        "step": classifier.state["step"],
        "mode": classifier.state["config"]["mode"],
        "sensor": sensor,
        "split": config.split,
        "pixels": len(pixels),
        "labelled_pixels": len(every),
        "seed": config.seed,
        **_report(found, pixels, classes),
        "controls": controls(classifier, shards, pixels),
        "data": data_version(shards.manifest),
        "trained_on": classifier.state["data"],
    }
    out = config.out or config.checkpoint / "metrics.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(plain_json(result), encoding="utf-8")
    plain: dict[str, Any] = json.loads(plain_json(result))
    return plain


def check_shards(shards: ShardSet, classifier: Classifier) -> None:
    """Refuse shards whose bands, units or scale are not those that the model was trained on.

    Raises:
        SchemaError: They differ, or the shards have no tile of the sensor.
    """
    contract, where = classifier.contract, str(shards.root)
    sensors = shards.manifest["sensors"]
    if contract.sensor not in sensors:
        raise SchemaError(
            f"{where}: expected tiles of sensor {contract.sensor}, as the checkpoint was trained "
            f"on, got {sorted(sensors)}"
        )
    entry = sensors[contract.sensor]
    found = [s["wavelength"] for s in shards.manifest["spectral"] if s["sensor"] == contract.sensor]
    check_wavelengths(found, contract, where=where)
    check_scale(float(entry["scale"]), str(entry["units"]), contract, where=where)
    made, trained = shards.manifest["recipe_hash"], classifier.state["data"]["recipe_hash"]
    if made != trained:
        raise SchemaError(
            f"{where}: expected shards of the recipe and split that the checkpoint was trained on "
            f"({trained[:12]}), got {made[:12]}; another split could hold its training ground"
        )


def controls(classifier: Classifier, shards: ShardSet, pixels: Pixels) -> dict[str, Any] | None:
    """Return the numbers of the classical controls, None if the training pixels are not there."""
    path = classifier.home / TRAINING_PIXELS_FILE
    if not path.is_file():
        logger.warning("no %s: the classical controls are left out", path)
        return None
    with np.load(path, allow_pickle=False) as file:
        train, label = torch.from_numpy(file["spectra"]), torch.from_numpy(file["label"])
    spectra = pixel_spectra(shards, pixels, classifier.contract)
    names = classifier.classes
    return {
        "nearest_mean": _report(nearest_mean(train, label, spectra), pixels, names),
        "logistic_regression": _report(
            logistic_regression(train, label, spectra, len(names)), pixels, names
        ),
    }


def _report(found: np.ndarray, pixels: Pixels, classes: list[str]) -> dict[str, Any]:
    report = classification_report(confusion_matrix(found, pixels.label, len(classes)))
    for entry, name in zip(report["per_class"], classes, strict=True):
        entry["name"] = name
    return report
