import argparse
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from hypersigma import published

WEIGHTS = {"norm.weight": torch.arange(3.0), "blocks.0.bias": torch.ones(2)}


def same(got):
    assert got.keys() == WEIGHTS.keys()
    assert all(torch.equal(got[key], value) for key, value in WEIGHTS.items())


class Opened:
    """Runs code when it is unpickled without care."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "net"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_arguments_beside_the_weights(tmp_path, wrapper, zipped):
    path = tmp_path / "checkpoint.pth"
    content = {
        wrapper: {f"module.{key}": value for key, value in WEIGHTS.items()},
        "args": argparse.Namespace(lr=1e-4, model="spat", sizes=[64, 8], nested=None),
        "optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict(),
        "epoch": 1599,
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    same(published.read(path))


def test_a_state_dict_by_itself(tmp_path):
    torch.save(WEIGHTS, tmp_path / "weights.pth")
    same(published.read(tmp_path / "weights.pth"))


def test_safetensors(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({f"module.{key}": value for key, value in WEIGHTS.items()}, path)
    same(published.read(path))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(published.WeightsError, match=r"weights.safetensors: expected a whole"):
        published.read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_model_is_refused_and_not_opened(tmp_path, zipped):
    path, trace = tmp_path / "model.pkl", tmp_path / "trace"
    module = torch.nn.Linear(2, 2)
    module.opened = Opened(trace)
    torch.save(module, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        published.WeightsError, match=r"torch\.nn\.modules\.linear\.Linear"
    ) as caught:
        published.read(path)
    assert str(caught.value).startswith(f"{path}: expected tensors and plain values")
    assert "torch.save(model.state_dict()" in str(caught.value)
    assert not trace.exists()


def test_arguments_with_other_objects_inside_are_refused(tmp_path):
    path, trace = tmp_path / "checkpoint.pth", tmp_path / "trace"
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(x=Opened(trace))}, path)
    with pytest.raises(published.WeightsError, match="pickled objects"):
        published.read(path)
    assert not trace.exists()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(published.WeightsError, match="expected a whole file"):
        published.read(path)
    path.write_text("Not Found")
    with pytest.raises(published.WeightsError, match=r"weights.pth: expected"):
        published.read(path)
    path.write_bytes(b"")
    with pytest.raises(published.WeightsError, match="expected a whole file"):
        published.read(path)
    torch.save({"epoch": 3, "note": "no weights"}, path)
    with pytest.raises(published.WeightsError, match="got other things: epoch, note"):
        published.read(path)
    torch.save([torch.ones(2)], path)
    with pytest.raises(published.WeightsError, match="expected a state dict, got a list"):
        published.read(path)
    with pytest.raises(FileNotFoundError):
        published.read(tmp_path / "other.pth")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_refused_in_words(tmp_path, zipped):
    path = tmp_path / "weights.pth"
    torch.save({"model": WEIGHTS}, path, _use_new_zipfile_serialization=zipped)
    whole, refused = path.read_bytes(), []
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, 500, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            published.read(path)
        except published.WeightsError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(text.startswith(f"{path}: expected") for text in refused)


def test_names_that_are_no_text_and_a_dict_in_itself_are_refused(tmp_path):
    path, turning = tmp_path / "weights.pth", {}
    turning["model"] = turning
    for content in ({1: torch.ones(2)}, turning):
        torch.save(content, path)
        with pytest.raises(published.WeightsError, match=r"got other things: (1|model)"):
            published.read(path)
