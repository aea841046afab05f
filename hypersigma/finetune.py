"""Fine-tune a classifier of labelled pixels, from pretrained encoders or from scratch."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict, Field, PositiveInt
from torch import Tensor

from hypersigma import distributed, inputs
from hypersigma.backbones.sizes import SizeName
from hypersigma.classifier import (
    Classifier,
    classify_pixels,
    new_model,
    pixel_spectra,
    scale_inputs,
)
from hypersigma.data import WindowBatch, window_batches
from hypersigma.dryrun import dry_run
from hypersigma.inputs import SensorInput
from hypersigma.metrics import classification_report, confusion_matrix
from hypersigma.pixels import Pixels, draw, draw_per_class, labelled, read_classes
from hypersigma.pretrained import Pretrained, load_pretrained
from hypersigma.processes import process
from hypersigma.runfolder import compare, finished, resumable, run_identity, write_summary
from hypersigma.tasks.classification import PatchClassifier
from hypersigma.train import Job, TrainConfig, fit
from storage.schema import TILE_SIZE, SchemaError
from storage.stream import ShardSet, open_shards

logger = logging.getLogger(__name__)

TRAINING_PIXELS_FILE = "training_pixels.npz"
VAL_SEED = 0


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FinetuneConfig:
    """What `hypersigma-train finetune` reads."""

    run: Path
    """Folder of this run: checkpoints, logs, summary.json."""
    shards: Path
    """A folder that `hypersigma-data shards` wrote."""
    labels: Path
    """A folder with `classes.json` and `<scene_id>.npy` rasters, 0 = unlabelled."""
    sensor: Literal["hyperion", "ahsi"]
    mode: Literal["spatial", "spectral", "both"]
    """Which encoders look at a window."""
    size: SizeName
    n_per_class: PositiveInt
    """Labelled pixels of each class that are drawn from the training split."""
    train: TrainConfig
    window: int = Field(default=9, ge=1, le=TILE_SIZE)
    """Side of the window around a pixel."""
    patch_size: PositiveInt = 3
    """Side of the spatial encoder's patches."""
    ssa: bool | tuple[int, ...] = True
    """Sampling attention in most blocks, as published, or in those numbered, from 0; false: full
    attention in all, which is twice as fast on a CPU with few tokens."""
    pretrained: Pretrained = dataclasses.field(default_factory=Pretrained)
    standardize: bool = True
    """Per band by the training split's mean and standard deviation; false: stored / scale."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """What of each pixel's target is spread evenly over all classes."""
    val_pixels: PositiveInt = 1000
    """Labelled pixels of the validation split that choose the best checkpoint, at most."""


def finetune(config: FinetuneConfig, *, dry: bool = False) -> dict[str, Any]:
    """Train, or go on with, the run that `config` describes, and return its summary.

    Only tiles of the training split are trained on; the validation split chooses the checkpoint;
    the test split is not read. Of several processes the first one returns the summary, the others
    nothing; a run that a scheduler stopped returns how far it is. A dry one is measured, and
    returns what it needs.

    Raises:
        TrainError: The run folder is another run's, or steps go wrong too often.
        InterruptedRunError: Ctrl-C; the run is saved.
        SchemaError: The shards or the labels are missing or do not fit.
        CheckpointError: A pretrained encoder cannot be found or read.
    """
    with process(config.train) as device:
        return _finetune(config, device, dry=dry)


def _finetune(config: FinetuneConfig, device: torch.device, *, dry: bool) -> dict[str, Any]:
    shards = open_shards(config.shards)
    contract = _contract(config, shards)
    classes = read_classes(config.labels)
    identity = run_identity("finetune", config, shards.manifest, {config.sensor: contract})
    identity["classes"] = classes
    if not dry and (done := finished(config.run, identity)) is not None:
        return done
    torch.manual_seed(config.train.seed)
    model = new_model(identity["config"], contract, len(classes), recompute=config.train.recompute)
    identity["pretrained"] = load_pretrained(model, config.pretrained, contract)
    model.to(device)
    pixels = training_pixels(config, shards, classes)
    if distributed.rank() == 0 and not dry:
        compare(config.run, identity)
        save_training_pixels(config, shards, pixels, contract)
    held_out = _validation_pixels(config, shards)
    trained = Classifier(model, contract, classes, device, config.run, identity)
    job = Job(
        model=model,
        batches=lambda state: window_batches(
            shards,
            pixels,
            state,
            window=config.window,
            batch_size=config.train.batch_size,
            seed=config.train.seed,
            process=distributed.rank(),
            processes=distributed.world(),
        ),
        losses=lambda forward, batch, rng: window_losses(
            forward, model, contract, batch, device, smoothing=config.label_smoothing
        ),
        samples=lambda batch: batch.ids,
        evaluate=lambda: (
            validate(trained, shards, held_out, config.train.batch_size) if held_out else {}
        ),
        score="val_oa" if held_out is not None else None,
        identity=identity,
    )
    if dry:
        return dry_run(job, config.train, config.run, workers=None)
    progress = fit(job, config.train, config.run)
    if distributed.rank():
        return {}
    if progress.step < config.train.steps:
        return resumable(config.run, progress, config.train.steps)
    extra = {
        "training_pixels": len(pixels),
        "val_pixels": 0 if held_out is None else len(held_out),
        "pretrained": identity["pretrained"],
    }
    return write_summary(config.run, identity, progress, extra)


def training_pixels(config: FinetuneConfig, shards: ShardSet, classes: list[str]) -> Pixels:
    """Draw the labelled pixels that are trained on."""
    pixels = labelled(shards, config.labels, sensor=config.sensor, split="train")
    return draw_per_class(pixels, config.n_per_class, classes, seed=config.train.seed)


def save_training_pixels(
    config: FinetuneConfig, shards: ShardSet, pixels: Pixels, contract: SensorInput
) -> None:
    """Write which pixels are trained on, and their spectra as inputs, into the run folder."""
    config.run.mkdir(parents=True, exist_ok=True)
    np.savez(
        config.run / TRAINING_PIXELS_FILE,
        spectra=pixel_spectra(shards, pixels, contract).numpy(),
        label=pixels.label,
        tile_id=np.array([shards.index["tile_id"][int(row)].as_py() for row in pixels.tile]),
        y=pixels.y,
        x=pixels.x,
    )


def window_losses(
    forward: Callable[..., Tensor],
    model: PatchClassifier,
    contract: SensorInput,
    batch: WindowBatch,
    device: torch.device,
    *,
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Return the loss and the share of right answers of one batch; `forward` runs the model."""
    x_NCSS = scale_inputs(batch.stored, contract, device)
    label_N = batch.label.to(device)
    logits_NK = forward(x_NCSS, batch.wavelength.to(device))
    right = (logits_NK.argmax(1) == label_N).float().mean()
    return {"loss": model.loss(logits_NK, label_N, smoothing), "oa": right}


def validate(
    classifier: Classifier, shards: ShardSet, pixels: Pixels, batch_size: int
) -> dict[str, float]:
    """Return how well the pixels of the validation split are classified."""
    found = classify_pixels(classifier, shards, pixels, batch_size=batch_size)
    report = classification_report(confusion_matrix(found, pixels.label, len(classifier.classes)))
    return {f"val_{name}": report[name] for name in ("oa", "aa", "kappa")}


def _validation_pixels(config: FinetuneConfig, shards: ShardSet) -> Pixels | None:
    present = {(entry["split"], entry["sensor"]) for entry in shards.manifest["shards"]}
    if ("val", config.sensor) not in present:
        logger.warning("%s has no tile in val: the last checkpoint is the best", shards.root)
        return None
    pixels = labelled(shards, config.labels, sensor=config.sensor, split="val")
    return draw(pixels, config.val_pixels, seed=VAL_SEED)


def _contract(config: FinetuneConfig, shards: ShardSet) -> SensorInput:
    contracts = inputs.from_manifest(shards.manifest, standardize=config.standardize)
    if config.sensor not in contracts:
        raise SchemaError(
            f"{shards.root}: expected tiles of sensor {config.sensor}, got {sorted(contracts)}"
        )
    return contracts[config.sensor]
