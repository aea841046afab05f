"""Encoders start from pretraining runs, checkpoints or exports, if the spectral contracts allow."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydantic.dataclasses
from pydantic import ConfigDict
from torch import nn

from hypersigma import checkpoint, inputs
from hypersigma.backbones.loading import load_encoder
from hypersigma.checkpoint import Checkpoint
from hypersigma.inputs import SensorInput
from hypersigma.runfolder import TrainError

logger = logging.getLogger(__name__)


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Pretrained:
    """Pretraining runs, single checkpoints or exports that the encoders start from.

    None: from scratch.
    """

    spatial: Path | None = None
    spectral: Path | None = None


def load_pretrained(
    model: nn.Module, pretrained: Pretrained, contract: SensorInput
) -> dict[str, Any]:
    """Fill the encoders and return, by encoder, where from and what became of its keys.

    Other bands than those trained on, of the same sensor or another, are adapted to by wavelength;
    the report says how.

    Args:
        model: A trunk, which has `spatial` and `spectral`; changed in place.
        pretrained: What to fill it from.
        contract: Of the data that the model will see.

    Raises:
        TrainError: A pretrained encoder is named that the model has no place for; it is of the
            other kind; or it saw inputs that were standardised where these are not.
        SchemaError: It saw inputs of other units or scale.
        CheckpointError: There is no whole checkpoint.
    """
    return _filled(
        model, pretrained, contract.centres,
        lambda found, kind: _fitting_contracts(found, kind, contract),
    )  # fmt: skip


def load_for_bands(
    model: nn.Module, pretrained: Pretrained, wavelengths: Sequence[float]
) -> dict[str, Any]:
    """Fill the encoders for a cube, whose values are standardised by its own training pixels.

    So its units do not matter. The bands are adapted to by wavelength, by order if there is none.

    Args:
        model: A trunk; changed in place.
        pretrained: What to fill it from.
        wavelengths: Band centres [nm] of the cube; empty if they are not known.

    Raises:
        TrainError: As `load_pretrained`.
        CheckpointError: There is no whole checkpoint.
    """
    return _filled(model, pretrained, wavelengths, _standardized_contracts)


def _filled(
    model: nn.Module,
    pretrained: Pretrained,
    bands: Sequence[float],
    contracts: Callable[[Checkpoint, str], dict[str, SensorInput]],
) -> dict[str, Any]:
    """Fill the encoders that are named; `contracts` says which sensors one saw, or refuses it."""
    reports: dict[str, Any] = {}
    for kind in ("spatial", "spectral"):
        path, encoder = getattr(pretrained, kind), getattr(model, kind)
        if path is None:
            continue
        if encoder is None:
            other = "spectral" if kind == "spatial" else "spatial"
            raise TrainError(f"pretrained.{kind} is given, but mode {other} has no such encoder")
        found = checkpoint.find(path)
        seen = contracts(found, kind)
        try:
            report = load_encoder(
                encoder,
                found.weights(),
                seen=[one for known in seen.values() for one in known.wavelengths],
                bands=bands,
            )
        except ValueError as error:
            raise TrainError(f"pretrained.{kind}: {found.folder}: {error}") from error
        origin = {
            "from": str(found.folder), "step": found.state["step"], "data": found.state["data"],
            "sensors": sorted(seen),
        }  # fmt: skip
        reports[kind] = origin | dataclasses.asdict(report)
        logger.info("%s encoder from %s:\n%s", kind, found.folder, report)
    return reports


def _fitting_contracts(
    found: Checkpoint, kind: str, contract: SensorInput
) -> dict[str, SensorInput]:
    """Return the contracts of the sensors that an encoder saw, if it can see these data."""
    where = f"pretrained.{kind}: {found.folder}"
    standardized = _of_kind(found, kind)["standardize"]
    if standardized != contract.standardized:
        raise TrainError(
            f"{where} saw inputs with standardize: {standardized}; "
            f"set standardize: {standardized} here too"
        )
    seen = inputs.from_json(found.state["spectral"])
    known = seen.get(contract.sensor)
    if known is None:
        alike = (
            one
            for one in seen.values()
            if (one.scale, one.units) == (contract.scale, contract.units)
        )
        known = next(alike, next(iter(seen.values())))
        logger.warning("%s has seen %s, not %s", where, sorted(seen), contract.sensor)
    inputs.check_scale(contract.scale, contract.units, known, where=where)
    return seen


def _standardized_contracts(found: Checkpoint, kind: str) -> dict[str, SensorInput]:
    """Return the contracts of the sensors that an encoder saw, standardised."""
    if not _of_kind(found, kind)["standardize"]:
        raise TrainError(
            f"pretrained.{kind}: {found.folder} saw inputs with standardize: false, and tasks on "
            "cubes standardise; pretrain with standardize: true"
        )
    return inputs.from_json(found.state["spectral"])


def _of_kind(found: Checkpoint, kind: str) -> dict[str, Any]:
    """Return the config of a checkpoint that holds an encoder of a kind."""
    config: dict[str, Any] = found.state["config"]
    made = config.get("kind")
    if made != kind:
        raise TrainError(
            f"pretrained.{kind}: {found.folder} is a checkpoint of kind {made!r}; "
            "`hypersigma-train export --what encoder` takes the encoder out of a classifier"
        )
    return config
