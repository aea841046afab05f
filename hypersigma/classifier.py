"""A trained classifier with all that its use needs: bands, scaling, window, class names.

Shape letters: N pixels, C bands, S window side, H W pixels of a tile.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypersigma import checkpoint
from hypersigma.bands import map_bands, mix_bands
from hypersigma.checkpoint import CheckpointError, is_export
from hypersigma.data import wavelengths
from hypersigma.inputs import SensorInput, from_json, standardize
from hypersigma.pixels import Pixels, windows
from hypersigma.tasks.classification import PatchClassifier, build_classifier
from storage.schema import SchemaError
from storage.stream import ShardSet, read_tile

logger = logging.getLogger(__name__)

MODEL_KEYS = ("mode", "size", "window", "patch_size", "ssa")
"""Keys of a fine-tuning config that the model is built from."""
LEAST_REACHED = 0.5
"""Share of a classifier's bands that data in other bands must reach."""


@dataclass(frozen=True)
class Classifier:
    """A model, and how the stored numbers of one sensor become its input."""

    model: PatchClassifier
    contract: SensorInput
    classes: list[str]
    device: torch.device
    folder: Path
    """The checkpoint."""
    state: dict[str, Any]
    """What its `state.json` says."""
    mixing: Tensor | None = None
    """(K, N): how the model's bands are made of the data's (see `BandMap`); None: they are the
    same."""

    @property
    def home(self) -> Path:
        """Where what belongs to the checkpoint is: the run's folder, or the export itself."""
        return self.folder if is_export(self.folder) else self.folder.parents[1]

    def classify(
        self,
        stored_CHW: Tensor,
        wavelength_C: Tensor,
        y_N: np.ndarray,
        x_N: np.ndarray,
        *,
        batch_size: int,
    ) -> np.ndarray:
        """Return the class (N,), 0-based, of pixels of one stored tile."""
        self.model.eval()
        if self.mixing is not None:
            stored_CHW = mix_bands(stored_CHW, self.mixing)
            wavelength_C = torch.tensor(self.contract.centres)
        tile_CHW = scale_inputs(stored_CHW[None], self.contract, self.device)[0]
        wavelength_C = wavelength_C.to(self.device)
        found = []
        with torch.no_grad():
            for start in range(0, len(y_N), batch_size):
                part = slice(start, start + batch_size)
                x_NCSS = windows(tile_CHW, y_N[part], x_N[part], self.model.window)
                logits_NK = self.model(x_NCSS, wavelength_C.expand(len(x_NCSS), -1))
                found.append(logits_NK.argmax(1).cpu().numpy())
        return np.concatenate(found) if found else np.empty(0, np.int64)


def classify_pixels(
    classifier: Classifier, shards: ShardSet, pixels: Pixels, *, batch_size: int
) -> np.ndarray:
    """Return the class (N,), 0-based, of labelled pixels; each tile is read once."""
    found = np.empty(len(pixels), np.int64)
    for numbers in pixels.by_tile():
        rows = pixels.tile[numbers[:1]]
        stored_CHW = torch.from_numpy(read_tile(shards, int(rows[0])))
        found[numbers] = classifier.classify(
            stored_CHW, wavelengths(shards, rows)[0], pixels.y[numbers], pixels.x[numbers],
            batch_size=batch_size,
        )  # fmt: skip
    return found


def fit_bands(
    classifier: Classifier, wavelengths: Sequence[float], *, where: str
) -> tuple[Classifier, str]:
    """Return the classifier for data of these bands, and in words how (empty: they are its own).

    Spectra in other bands are brought to those of the training by wavelength.

    Args:
        classifier: For the bands that it was trained on.
        wavelengths: Band centres [nm] of the data.
        where: What the data are, for messages.

    Raises:
        SchemaError: The data reach less than half of the bands that it was trained on.
    """
    contract = classifier.contract
    try:
        found = map_bands(contract.wavelengths, contract.bands, wavelengths)
    except ValueError as error:
        raise SchemaError(f"{where}: {error}") from error
    if not found.words:
        return classifier, ""
    reached = float(found.matrix.any(dim=1).float().mean())
    if reached < LEAST_REACHED:
        raise SchemaError(
            f"{where}: {found.words}; at least {LEAST_REACHED:.0%} of the bands that the "
            "classifier was trained on must be there: fine-tune one for these bands"
        )
    logger.warning("%s: spectra are resampled from other bands: %s", where, found.words)
    return dataclasses.replace(classifier, mixing=found.matrix), found.words


def new_model(
    config: Mapping[str, Any], contract: SensorInput, classes: int, *, recompute: bool = False
) -> PatchClassifier:
    """Return an untrained classifier for the keys `MODEL_KEYS` of a fine-tuning config."""
    return build_classifier(
        config["mode"], config["size"], in_chans=contract.bands, num_classes=classes,
        window=config["window"], patch_size=config["patch_size"], ssa=config["ssa"],
        recompute=recompute,
    )  # fmt: skip


def open_classifier(path: Path, device: torch.device) -> Classifier:
    """Open a fine-tuned classifier from a run (its best checkpoint), a checkpoint or an export.

    Raises:
        CheckpointError: There is none, it is damaged, or it is of another task.
    """
    found = checkpoint.find(path)
    task = found.state["task"]
    if task != "finetune":
        raise CheckpointError(
            f"{found.folder}: expected a checkpoint of `finetune`, got one of {task!r}"
        )
    contract = next(iter(from_json(found.state["spectral"]).values()))
    classes = found.state["classes"]
    model = new_model(found.state["config"], contract, len(classes))
    model.load_state_dict(found.weights())
    return Classifier(model.to(device).eval(), contract, classes, device, found.folder, found.state)


def scale_inputs(stored_NCHW: Tensor, contract: SensorInput, device: torch.device) -> Tensor:
    """Return one sensor's stored numbers as float32 inputs of the same shape, on a device."""
    shift_1C, spread_1C = (
        torch.tensor([row], dtype=torch.float32, device=device)
        for row in (contract.shift, contract.spread)
    )
    scale_1 = torch.tensor([contract.scale], dtype=torch.float32, device=device)
    return standardize(stored_NCHW.to(device), shift_1C, spread_1C, scale_1)


def pixel_spectra(shards: ShardSet, pixels: Pixels, contract: SensorInput) -> Tensor:
    """Return the spectra (N, C) of pixels as inputs; each tile is read once."""
    spectra = torch.empty(len(pixels), contract.bands)
    for numbers in pixels.by_tile():
        stored_CHW = torch.from_numpy(read_tile(shards, int(pixels.tile[numbers[0]])))
        stored_CN = stored_CHW[:, pixels.y[numbers], pixels.x[numbers]]
        stored_NCHW = stored_CN.T[:, :, None, None]
        spectra[numbers] = scale_inputs(stored_NCHW, contract, torch.device("cpu"))[:, :, 0, 0]
    return spectra
