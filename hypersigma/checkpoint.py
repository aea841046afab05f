"""A checkpoint is a folder: `model.safetensors`, `optimizer/moments.safetensors`, `state.json`.

Weights and the optimiser's moments are whole and by the parameters' names, whatever engine and
however many processes trained them, so any other goes on from them. No file is a pickle.

It is written under a temporary name, flushed to disk and renamed, so a folder with a checkpoint's
name is a whole one; `state.json` holds the hash of every other file, so a damaged one is noticed.
An export (`hypersigma.export`) is opened as a checkpoint is: its `config.json` and `spectral.json`
say together what `state.json` does.
"""

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

import safetensors
import safetensors.torch
from torch import Tensor

from hypersigma.tensors import write_tensors

logger = logging.getLogger(__name__)

STATE_SCHEMA, EXPORT_SCHEMA = 2, 1
MODEL_FILE = "model.safetensors"
MOMENTS_FILE = "optimizer/moments.safetensors"
STATE_FILE = "state.json"
MEAN = "ema."
"""Before the name of a weight: its running mean, beside the moments."""
EXPORT_FILE = "config.json"
SPECTRAL_FILE = "spectral.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or made for something else."""


@dataclass(frozen=True)
class Tensors:
    """What a checkpoint holds of a model in training, on the CPU."""

    model: Mapping[str, Tensor]
    """Its state dict."""
    moments: Mapping[str, Tensor]
    """AdamW's state, `exp_avg.<parameter>` and so on; none before the first step. And `ema.` ones,
    the running means of the weights."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole."""

    folder: Path
    state: dict[str, Any]
    """What `state.json` says: step, stream, config, data, spectral, ...; of an export what is
    needed to use it: what, step, task, config, data, spectral, classes."""

    def weights(self) -> dict[str, Tensor]:
        """Read the model's state dict, on the CPU; of weights with a running mean that mean."""
        found = safetensors.torch.load_file(self.folder / MODEL_FILE)
        if (self.folder / MOMENTS_FILE).is_file():
            with safetensors.safe_open(self.folder / MOMENTS_FILE, "pt") as file:
                names = [name for name in file.keys() if name.startswith(MEAN)]  # noqa: SIM118
                found |= {name.removeprefix(MEAN): file.get_tensor(name) for name in names}
        return found

    def tensors(self) -> Tensors:
        """Read what training goes on with: weights and moments, on the CPU."""
        files = (self.folder / MODEL_FILE, self.folder / MOMENTS_FILE)
        return Tensors(*(safetensors.torch.load_file(file) for file in files))


def save(run: Path, tensors: Tensors, state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of step `state["step"]` into `run/checkpoints` and return its folder."""
    final = _folder(run, state["step"])
    with whole_folder(final) as folder:
        (folder / MOMENTS_FILE).parent.mkdir()
        files = {
            MODEL_FILE: write_tensors(folder / MODEL_FILE, tensors.model),
            MOMENTS_FILE: write_tensors(folder / MOMENTS_FILE, tensors.moments),
        }
        write_state(folder / STATE_FILE, state, files, schema=STATE_SCHEMA)
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


def write_state(
    path: Path, state: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]], *, schema: int
) -> None:
    """Write `state` as JSON with the size and hash of the files beside it."""
    text = json.dumps({"schema": schema, **state, "files": files}, indent=1)
    path.write_text(text, encoding="utf-8")


def describe(path: Path) -> dict[str, Any]:
    """Return the size [B] and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def prune(run: Path, *, keep: int, every: int = 0, spare: int | None = None) -> None:
    """Remove all but the last `keep` checkpoints of a run.

    Those of step `spare`, and of steps that are multiples of `every`, stay, too; that of step 0
    only while there is no other.
    """
    folders = _folders(run)
    for folder in folders[:-1]:
        step = int(folder.name.removeprefix("step-"))
        old = folder in folders[:-keep] and step != spare and not (every and step % every == 0)
        if old or not step:
            shutil.rmtree(folder)


def open_whole(folder: Path) -> Checkpoint:
    """Open one checkpoint or export after checking every file of it against `state.json`.

    Raises:
        CheckpointError: A file is missing, cut short or changed.
    """
    name, beside, known = STATE_FILE, MOMENTS_FILE, STATE_SCHEMA
    if is_export(folder):
        name, beside, known = EXPORT_FILE, SPECTRAL_FILE, EXPORT_SCHEMA
    try:
        state = json.loads((folder / name).read_text(encoding="utf-8"))
        if state["schema"] != known:
            raise CheckpointError(
                f"{folder}: expected checkpoint schema {known}, got {state['schema']}; "
                "another version of this program wrote it, and that one reads it"
            )
        # These, whatever it names: a file that it does not tell of is not known to be whole.
        files = {each: state["files"][each] for each in (MODEL_FILE, beside)}
        if is_export(folder):
            _ = state["step"], state["task"], state["config"]["standardize"]
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: expected a checkpoint with a readable {name}, got {error!r}"
        ) from error
    for name, expected in files.items():
        path = folder / name
        found = describe(path) if path.is_file() else None
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
    if last is None or not last.state["step"]:  # which is not trained
        raise CheckpointError(
            f"{path}: expected a run folder with checkpoints, a checkpoint folder or an export, "
            "found none; train one with `hypersigma-train pretrain` or `finetune`"
        )
    best = last.state.get("best")
    if best is None or best["step"] == last.state["step"]:
        return last
    try:
        return open_whole(_folder(path, best["step"]))
    except CheckpointError as error:
        logger.warning("the best checkpoint is not whole, so this is the newest: %s", error)
        return last


def _folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def _folders(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
