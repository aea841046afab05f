"""A trained model as a folder to hand on: weights, config, spectral contract, card.

`model.safetensors`, `config.json` (what it is, and the recipe of its training without the paths of
one machine), `spectral.json` (what it must be fed with, and the version of the data it was trained
on), `README.md`. `finetune`, `evaluate` and `predict` open it where they open a run.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import Tensor

from hypersigma import checkpoint, inputs
from hypersigma.backbones.loading import is_decoder
from hypersigma.checkpoint import (
    EXPORT_FILE,
    EXPORT_SCHEMA,
    MODEL_FILE,
    SPECTRAL_FILE,
    Checkpoint,
)
from hypersigma.runfolder import TrainError

type What = Literal["encoder", "spatial", "spectral", "model"]
"""`encoder`: the only one that there is; `spatial`, `spectral`: that one of two; `model`: all."""

PATHS = ("run", "shards", "labels", "pretrained", "init")
"""Keys of configs that mean nothing elsewhere."""
SPECTRAL_SCHEMA = 1
CARD_FILE = "README.md"


def export(run: Path, out: Path, what: What | None = None) -> dict[str, Any]:
    """Write a run's model, or an encoder of it, into the folder `out`, and return what it is.

    Args:
        run: A run (its best checkpoint), one checkpoint, or an export.
        out: A folder that is not there yet, or empty. It is written whole or not at all.
        what: None: `model` of a classifier, `encoder` of a pretraining.

    Raises:
        TrainError: `out` is not empty, or there is no such encoder.
        CheckpointError: There is no whole checkpoint.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainError(f"{out} is not empty: give another folder, or remove it")
    found = checkpoint.find(run)
    what = what or ("model" if found.state["task"] == "finetune" else "encoder")
    weights = found.weights()
    state = _state(found, "model" if what == "model" else "encoder")
    if what != "model":
        state["config"]["kind"] = kind = _kind(found, what)
        weights = _encoder(weights, kind)
        state["config"]["encoder"] = _built_from(weights)
    elif found.state["task"] == "encoder":
        raise TrainError(f"{found.folder} holds an encoder alone: leave out --what")
    spectral = {
        "schema": SPECTRAL_SCHEMA, "sensors": found.state["spectral"], "data": found.state["data"],
    }  # fmt: skip
    # A link stays one, and `.` has a name.
    with checkpoint.whole_folder(out.resolve()) as folder:
        safetensors.torch.save_file(weights, folder / MODEL_FILE, metadata={"format": "pt"})
        (folder / SPECTRAL_FILE).write_text(json.dumps(spectral, indent=1), encoding="utf-8")
        # Safetensors makes files for their owner alone.
        (folder / MODEL_FILE).chmod((folder / SPECTRAL_FILE).stat().st_mode)
        (folder / CARD_FILE).write_text(card(state, found, weights), encoding="utf-8")
        files = {name: checkpoint.describe(folder / name) for name in (MODEL_FILE, SPECTRAL_FILE)}
        checkpoint.write_state(folder / EXPORT_FILE, state, files, schema=EXPORT_SCHEMA)
    return {
        "out": str(out),
        "from": str(found.folder),
        **{key: state[key] for key in ("what", "task", "step")},
        "kind": _looks(state["config"]),
        "parameters": sum(value.numel() for value in weights.values()),
        "sensors": {name: one.bands for name, one in _contracts(found).items()},
        "data": found.state["data"],
    }


def _state(found: Checkpoint, what: Literal["encoder", "model"]) -> dict[str, Any]:
    """Return what `config.json` says, but for an encoder's own measures."""
    config = {key: value for key, value in found.state["config"].items() if key not in PATHS}
    state = {
        "what": what,
        "task": found.state["task"] if what == "model" else "encoder",
        "step": found.state["step"],
        "software": importlib.metadata.version("hypersigma-pipeline"),
        "config": config,
    }
    if what == "model" and "classes" in found.state:
        state["classes"] = found.state["classes"]
    return state


def card(state: Mapping[str, Any], found: Checkpoint, weights: Mapping[str, Tensor]) -> str:
    """Return a short model card in Markdown."""
    config, data = state["config"], found.state["data"]
    kind = _looks(config)
    title = f"HyperSIGMA {kind} {state['what']}, size {config['size']}"
    millions = sum(value.numel() for value in weights.values()) / 1e6
    rows = [
        f"| {name} | {one.bands} | {min(one.centres):.0f}-{max(one.centres):.0f} nm "
        f"| {one.units} = stored / {one.scale:g} |"
        for name, one in _contracts(found).items()
    ]
    version = ", ".join(f"{key} `{value}`" for key, value in data.items())
    means = "standardised per band" if config["standardize"] else "not standardised"
    lines = [
        f"# {title}", "",
        f"{millions:.1f} million parameters, step {state['step']}, by hypersigma-pipeline "
        f"{state['software']}. Trained on: {version}.", "",
        "| sensor | bands | range | values |", "|---|---|---|---|", *rows, "",
        f"Inputs are {means}; `{SPECTRAL_FILE}` has every band's wavelength, width, mean and "
        f"standard deviation, `{EXPORT_FILE}` the recipe of the training.",
    ]  # fmt: skip
    if "classes" in state:
        lines += ["", f"Classes: {', '.join(state['classes'])}."]
    lines += ["", "## Use", "", "```sh", *_usage(state, kind), "```", ""]
    return "\n".join(lines)


def _usage(state: Mapping[str, Any], kind: str) -> list[str]:
    if state["task"] == "finetune":
        return [
            "hypersigma-train evaluate CONFIG checkpoint=THIS_FOLDER",
            "hypersigma-train predict CONFIG checkpoint=THIS_FOLDER",
        ]
    return [f"hypersigma-train finetune CONFIG pretrained.{kind}=THIS_FOLDER"]


def _contracts(found: Checkpoint) -> dict[str, inputs.SensorInput]:
    return inputs.from_json(found.state["spectral"])


def _kind(found: Checkpoint, what: What) -> str:
    """Return which encoder is meant, `spatial` or `spectral`."""
    there = _looks(found.state["config"])
    if what == "encoder" and there == "both":
        raise TrainError(f"{found.folder} has two encoders: give --what spatial or --what spectral")
    if what != "encoder" and there not in ("both", what):
        raise TrainError(f"{found.folder} has no {what} encoder, it is {there}")
    return there if what == "encoder" else what


def _looks(config: Mapping[str, Any]) -> str:
    """Return what a model looks at, `spatial`, `spectral` or `both`, by a config of any task."""
    kind: str = config.get("kind") or config["mode"]
    return kind


def _encoder(weights: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return an encoder's part of the weights of an autoencoder, or of a classifier."""
    prefix = f"{kind}."
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    return own or {k: v for k, v in weights.items() if not is_decoder(k)}


def _built_from(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the measures of an encoder that its weights show."""
    tokens, width = weights["pos_embed"].shape[1:]
    measures = {"tokens": tokens, "width": width}
    if "patch_embed.proj.weight" in weights:
        _, bands, patch, _ = weights["patch_embed.proj.weight"].shape
        return measures | {"bands": bands, "patch_size": patch}
    return measures | {"pixels": weights["spat_map.weight"].shape[1]}
