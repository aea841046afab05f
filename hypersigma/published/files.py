"""Weights out of files from elsewhere: `.pth`, `.pt`, `.ckpt`, `.safetensors`; no code is run.

What is not tensors in a known wrapping is refused, in words.
"""

import argparse
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

WRAPPERS = ("model", "state_dict", "net")
"""Names under which published checkpoints hold the state dict, beside optimiser and arguments."""

PARALLEL = "module."
"""What `DataParallel` puts before every name."""


_DAMAGED = (
    RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    MemoryError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What torch raises on bytes that it did not write, beside `UnpicklingError`."""


class WeightsError(ValueError):
    """A file that holds no state dict, or more than tensors and plain values."""


def read(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, on the CPU, names without `module.` before them.

    A `.pth` may hold it alone or as `model`, `state_dict` or `net` of a dict, with an
    `argparse.Namespace` beside it. Weights stay on disk until they are used, if the file's format
    lets them.

    Raises:
        WeightsError: Not such a file: a pickled model, for instance, which could run any code.
        FileNotFoundError: There is no such file.
    """
    if path.suffix == ".safetensors":
        try:
            return state_dict_of(safetensors.torch.load_file(path))
        except safetensors.SafetensorError as error:
            raise WeightsError(f"{path}: expected a whole safetensors file, got {error}") from error
    try:
        return state_dict_of(_load(path))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def state_dict_of(content: Any) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint's content, names without `module.` before them.

    Raises:
        WeightsError: There is none.
    """
    if not isinstance(content, Mapping):
        raise WeightsError(f"expected a state dict, got a {type(content).__name__}")
    for wrapper in WRAPPERS:
        within = content.get(wrapper)
        if isinstance(within, Mapping) and within is not content:
            return state_dict_of(within)
    others = [
        str(name)
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if others or not content:
        raise WeightsError(
            f"expected tensors by name, or a dict that holds them as {', '.join(WRAPPERS)}; "
            f"got {'other things: ' + ', '.join(others[:5]) if others else 'nothing'}"
        )
    names = dict(content)
    while all(name.startswith(PARALLEL) for name in names):
        names = {name.removeprefix(PARALLEL): value for name, value in names.items()}
    return names


def _load(path: Path) -> Any:
    try:
        mapped = zipfile.is_zipfile(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise WeightsError(_why_refused(error)) from error
    except _DAMAGED as error:
        raise WeightsError(f"expected a whole file that torch.save wrote, got {error!r}") from error


def _why_refused(error: pickle.UnpicklingError) -> str:
    found = re.search(r"GLOBAL (\S+)", str(error))
    return (
        "expected tensors and plain values, got pickled objects"
        f"{f' ({found[1]})' if found else ''}. Opening them can run any code. If it is a whole "
        "model: where it was made and is trusted, load it and save its weights by "
        "torch.save(model.state_dict(), 'weights.pth')"
    )
