import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch

CONFORMANCE = Path(__file__).parents[2] / "../shared/conformance"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def conformance() -> Path:
    if not CONFORMANCE.is_dir():
        pytest.skip("the vectors of the published models are not beside this checkout")
    return CONFORMANCE


@pytest.fixture
def vectors(conformance: Path) -> Callable[[str], tuple[dict, dict]]:
    """Arrays and state dict of one file of single-module vectors."""

    def read(stem: str) -> tuple[dict, dict]:
        with np.load(conformance / "tiny" / f"{stem}.npz") as file:
            arrays = {name: torch.from_numpy(file[name]) for name in file.files}
        state = {k.removeprefix("sd/"): v for k, v in arrays.items() if k.startswith("sd/")}
        return {k: v for k, v in arrays.items() if not k.startswith("sd/")}, state

    return read


@pytest.fixture
def full_vectors(conformance: Path) -> Callable[[str], tuple[dict, dict]]:
    """Config and arrays of one file of full-model vectors."""

    def read(stem: str) -> tuple[dict, dict]:
        with np.load(conformance / f"{stem}.npz") as file:
            return json.loads(str(file["config"])), {k: file[k] for k in file.files}

    return read


def rule_noise(key: str) -> np.random.Generator:
    return np.random.default_rng(crc32(key.encode()))


def rule_input(shape: tuple[int, ...], key: str) -> torch.Tensor:
    return torch.from_numpy(rule_noise(key).random(shape, dtype=np.float32))


def rule_fill(state_dict: dict[str, torch.Tensor]) -> None:
    """Fill weights from their names, as the README of the vectors says."""
    state = {k: v for k, v in state_dict.items() if not k.endswith("decoder_pos_embed")}
    with ThreadPoolExecutor() as threads:
        list(threads.map(fill_entry, state, state.values()))


def fill_entry(name: str, tensor: torch.Tensor) -> None:
    if name.endswith("num_batches_tracked"):
        tensor.zero_()
        return
    value = tensor.numpy()
    rule_noise(name).standard_normal(dtype=np.float32, out=value)
    value *= np.float32(0.02)
    if name.endswith("running_var"):
        np.abs(value, out=value)
        value += np.float32(1)
    elif name.endswith(".weight") and tensor.dim() == 1:
        value += np.float32(1)
    if name.endswith(("sampling_offsets.weight", "sampling_offsets.bias")):
        value *= np.float32(25)
