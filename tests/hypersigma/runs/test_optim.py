"""Parameter groups, the learning-rate curve, what is made ahead, checkpoints by themselves."""

import math
import threading

import pytest
import torch
from torch import nn

from hypersigma import checkpoint
from hypersigma.checkpoint import CheckpointError
from hypersigma.optim import OptimConfig, adamw, learning_rate
from storage.ahead import ahead


def rate(step, **changes):
    config = OptimConfig(blr=0.256, warmup_steps=10, min_lr=0.1, **changes)
    return learning_rate(step, steps=110, samples_per_step=1000, config=config)


def test_learning_rate_warms_up_and_falls_as_half_a_cosine():
    peak = 0.256 * 1000 / 256
    assert [rate(step) for step in (0, 4, 9)] == pytest.approx([peak / 10, peak / 2, peak])
    assert rate(10) == pytest.approx(peak)
    assert rate(60) == pytest.approx((peak + 0.1) / 2)
    assert rate(85) == pytest.approx(0.1 + (peak - 0.1) * (1 - math.sqrt(0.5)) / 2)
    assert rate(110) == pytest.approx(0.1)


def test_vectors_do_not_decay():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    model[0].bias.requires_grad_(False)
    decay, plain = adamw(model, OptimConfig(weight_decay=0.3)).param_groups
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert [p.shape for p in decay["params"]] == [(4, 3)]
    assert [p.shape for p in plain["params"]] == [(4,), (4,)]  # the frozen bias is in neither


def test_what_is_made_ahead_keeps_order_and_passes_errors_on():
    def source():
        yield from range(5)
        raise KeyError("gone")

    with ahead(source()) as items:
        assert [next(items) for _ in range(5)] == list(range(5))
        with pytest.raises(KeyError, match="gone"):
            next(items)


def test_what_is_made_ahead_ends_with_its_source_and_leaves_no_thread():
    with ahead(iter([1, 2])) as items:
        assert list(items) == [1, 2]
    endless = iter(int, 1)
    with ahead(endless) as items:
        next(items)
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_checkpoint_comes_back_bit_by_bit(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = adamw(model, OptimConfig())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path, model, optimizer, {"step": 7, "note": "x"})
    found = checkpoint.find(tmp_path)
    assert (found.folder.name, found.state["note"]) == ("step-00000007", "x")
    for name, value in model.state_dict().items():
        assert torch.equal(found.weights()[name], value)
    moments = found.optimizer_state()["state"]
    assert torch.equal(moments[0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_an_unfinished_checkpoint_is_none(tmp_path):
    model = nn.Linear(3, 2)
    checkpoint.save(tmp_path, model, adamw(model, OptimConfig()), {"step": 1})
    whole = tmp_path / "checkpoints" / "step-00000001"
    whole.rename(whole.with_name(".writing-step-00000001"))
    assert checkpoint.newest(tmp_path) is None
    with pytest.raises(CheckpointError, match="expected a run folder with checkpoints"):
        checkpoint.find(tmp_path)


def test_a_changed_byte_is_noticed(tmp_path):
    model = nn.Linear(3, 2)
    folder = checkpoint.save(tmp_path, model, adamw(model, OptimConfig()), {"step": 1})
    path = folder / "optimizer" / "state.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.pt: expected .* the file is damaged"):
        checkpoint.open_whole(folder)


def test_generators_come_back():
    packed = checkpoint.pack_rng(torch.device("cpu"))
    expected = torch.rand(3)
    checkpoint.unpack_rng(packed, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
