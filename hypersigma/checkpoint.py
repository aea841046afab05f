"""A checkpoint is a folder: `model.safetensors`, `optimizer/state.pt`, `state.json`.

It is written under a temporary name, flushed to disk and renamed, so a folder with a checkpoint's
name is a whole one; `state.json` holds the hash of every other file, so a damaged one is noticed.
An export (`hypersigma.export`) is opened as a checkpoint is: its `config.json` and `spectral.json`
say together what `state.json` does.
"""

import base64
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

STATE_SCHEMA = 1
MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer/state.pt"
STATE_FILE = "state.json"
EXPORT_FILE = "config.json"
SPECTRAL_FILE = "spectral.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or made for something else."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole."""

    folder: Path
    state: dict[str, Any]
    """What `state.json` says: step, stream, rng, config, data, spectral, ...; of an export what is
    needed to use it: what, step, task, config, data, spectral, classes."""

    def weights(self) -> dict[str, Tensor]:
        """Read the model's state dict, on the CPU."""
        return safetensors.torch.load_file(self.folder / MODEL_FILE)

    def optimizer_state(self) -> dict[str, Any]:
        """Read the optimiser's state dict, on the CPU."""
        path = self.folder / OPTIMIZER_FILE
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state


def save(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> Path:
    """Write the checkpoint of step `state["step"]` into `run/checkpoints` and return its folder."""
    final = _folder(run, state["step"])
    with whole_folder(final) as folder:
        (folder / OPTIMIZER_FILE).parent.mkdir()
        weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
        safetensors.torch.save_file(weights, folder / MODEL_FILE)
        torch.save(optimizer.state_dict(), folder / OPTIMIZER_FILE)
        write_state(folder / STATE_FILE, state, (MODEL_FILE, OPTIMIZER_FILE))
    return final


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Yield a folder to fill, which then takes the place of `final`, or vanishes on an error."""
    temporary = final.with_name(f".writing-{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(final.parent)


def write_state(path: Path, state: Mapping[str, Any], files: tuple[str, ...]) -> None:
    """Write `state` as JSON with the size and hash of the files beside it."""
    described = {name: _describe(path.parent / name) for name in files}
    text = json.dumps({"schema": STATE_SCHEMA, **state, "files": described}, indent=1)
    path.write_text(text, encoding="utf-8")


def prune(run: Path, *, keep: int, spare: int | None) -> None:
    """Remove all but the last `keep` checkpoints of a run, and never the one of step `spare`."""
    for folder in _folders(run)[:-keep]:
        if spare is None or folder != _folder(run, spare):
            shutil.rmtree(folder)


def open_whole(folder: Path) -> Checkpoint:
    """Open one checkpoint or export after checking every file of it against `state.json`.

    Raises:
        CheckpointError: A file is missing, cut short or changed.
    """
    name = EXPORT_FILE if is_export(folder) else STATE_FILE
    beside = SPECTRAL_FILE if is_export(folder) else OPTIMIZER_FILE
    try:
        state = json.loads((folder / name).read_text(encoding="utf-8"))
        # These, whatever it names: a file that it does not tell of is not known to be whole.
        files = {each: state["files"][each] for each in (MODEL_FILE, beside)}
        schema = state["schema"]
        if is_export(folder):
            _ = state["step"], state["task"], state["config"]["standardize"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: expected a checkpoint with a readable {name}, got {error!r}"
        ) from error
    if schema != STATE_SCHEMA:
        raise CheckpointError(f"{folder}: expected checkpoint schema {STATE_SCHEMA}, got {schema}")
    for name, expected in files.items():
        path = folder / name
        found = _describe(path) if path.is_file() else None
        if found != expected:
            raise CheckpointError(f"{path}: expected {expected}, got {found}; the file is damaged")
    if is_export(folder):
        spectral = json.loads((folder / SPECTRAL_FILE).read_text(encoding="utf-8"))
        state |= {"spectral": spectral["sensors"], "data": spectral["data"]}
    return Checkpoint(folder, state)


def is_export(folder: Path) -> bool:
    """Say whether a folder is what `hypersigma-train export` writes."""
    return (folder / SPECTRAL_FILE).is_file()


def newest(run: Path) -> Checkpoint | None:
    """Return a run's newest whole checkpoint; a damaged one is skipped with a warning."""
    for folder in reversed(_folders(run)):
        try:
            return open_whole(folder)
        except CheckpointError as error:
            logger.warning("skipped a torn checkpoint: %s", error)
    return None


def find(path: Path) -> Checkpoint:
    """Open what a config calls a checkpoint: a checkpoint folder, an export, or a run folder.

    Of a run folder it is the checkpoint that did best on the validation split, if the run looked
    for one, else the newest.

    Raises:
        CheckpointError: There is none, or the one named is damaged.
    """
    if (path / STATE_FILE).exists() or is_export(path):
        return open_whole(path)
    last = newest(path)
    if last is None:
        raise CheckpointError(
            f"{path}: expected a run folder with checkpoints, a checkpoint folder or an export, "
            "found none; train one with `hypersigma-train pretrain` or `finetune`"
        )
    best = last.state.get("best")
    return last if best is None else open_whole(_folder(path, best["step"]))


def pack_rng(device: torch.device) -> dict[str, str]:
    """Return the state of torch's global generators as text."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {name: base64.b64encode(s.numpy().tobytes()).decode() for name, s in states.items()}


def unpack_rng(packed: Mapping[str, str], device: torch.device) -> None:
    """Put torch's global generators back into the state that `pack_rng` returned."""
    states = {
        name: torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
        for name, text in packed.items()
    }
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def _folders(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
