"""Parameter groups, the learning-rate curve, what is made ahead, checkpoints by themselves."""

import json
import math
import threading

import pytest
import safetensors.torch
import torch
from torch import nn

from hypersigma import checkpoint
from hypersigma.checkpoint import CheckpointError
from hypersigma.engines.deepspeed import deepspeed_engine
from hypersigma.engines.single import Single
from hypersigma.mae import spatial_mae
from hypersigma.optim import OptimConfig, adamw, layer_scales, learning_rate, set_learning_rate
from hypersigma.runfolder import TrainError
from hypersigma.tasks.classification import build_classifier
from hypersigma.tensors import write_tensors
from hypersigma.trainconfig import TrainConfig
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


def test_lower_layers_learn_more_slowly():
    model = build_classifier("both", "tiny", in_chans=5, num_classes=2, window=4, patch_size=2)
    depth = len(model.spatial.blocks)
    optimizer = adamw(model, OptimConfig(layer_decay=0.5, weight_decay=0.3))
    set_learning_rate(optimizer, 8.0)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    trained = dict(model.named_parameters())
    expected = {
        "head.weight": 8.0,
        "summary.bands.bias": 8.0,
        "spatial.norm.weight": 8.0,
        f"spatial.blocks.{depth - 1}.mlp.fc1.weight": 4.0,
        f"spectral.blocks.{depth - 2}.norm1.bias": 2.0,
        "spatial.blocks.0.attn.qkv.bias": 8.0 * 0.5**depth,
        "spatial.patch_embed.proj.weight": 8.0 * 0.5 ** (depth + 1),
        "spectral.spat_map.weight": 8.0 * 0.5 ** (depth + 1),
    }
    assert {name: rates[trained[name]] for name in expected} == pytest.approx(expected)
    assert all(decays[p] == (0.3 if p.ndim > 1 else 0) for p in decays)
    assert set(rates) == {p for p in trained.values() if p.requires_grad}


def test_a_decoders_blocks_are_no_encoders():
    model = spatial_mae("tiny", bands=4)
    scales = layer_scales(model, 0.5)
    assert {s for name, s in scales.items() if name.startswith("decoder")} == {1.0}


def test_labels_are_smoothed():
    model = build_classifier("spatial", "tiny", in_chans=5, num_classes=4, window=4, patch_size=2)
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 1])
    soft = nn.functional.one_hot(target, 4) * 0.8 + 0.2 / 4
    by_hand = -(soft * logits.log_softmax(1)).sum(1).mean()
    assert model.loss(logits, target, 0.2).item() == pytest.approx(by_hand.item(), rel=1e-6)


def averaged(steps, ema=0.9):
    """Return a small model and its engine after some steps, and its weights behind each."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    model.bias.requires_grad_(False)
    engine = Single(model, TrainConfig(steps=9, batch_size=1, ema=ema))
    weights = [model.weight.detach().clone()]
    for number in range(steps):
        one_step(engine, number + 1)
        weights.append(model.weight.detach().clone())
    return model, engine, weights


def test_the_running_mean_is_evaluated_and_handed_on_but_not_trained(tmp_path):
    model, engine, weights = averaged(30)
    mean = weights[0]
    for number, weight in enumerate(weights[1:], start=1):
        stays = min(0.9, (1 + number) / (10 + number))
        mean = stays * mean + (1 - stays) * weight
    with engine.averaged():
        torch.testing.assert_close(model.weight.detach(), mean)
    assert model.weight.equal(weights[-1])
    checkpoint.save(tmp_path, engine.state(keep=True), {"step": 30})
    found = checkpoint.newest(tmp_path)
    torch.testing.assert_close(found.weights()["weight"], mean)
    assert found.weights()["bias"].equal(model.bias)
    assert found.tensors().model["weight"].equal(weights[-1])


def test_a_running_mean_goes_on_bit_by_bit(tmp_path):
    model, engine, _ = averaged(3)
    checkpoint.save(tmp_path, engine.state(keep=True), {"step": 3})
    again, other, _ = averaged(0)
    other.load(checkpoint.newest(tmp_path).tensors())
    for number in (4, 5):
        one_step(engine, number)
        one_step(other, number)
    assert again.weight.equal(model.weight)
    with engine.averaged(), other.averaged():
        assert again.weight.equal(model.weight)


def test_a_running_mean_can_begin_in_a_run_that_had_none(tmp_path):
    _, engine, weights = averaged(3, ema=None)
    again, other, _ = averaged(0)
    other.load(engine.state(keep=True))
    with other.averaged():
        assert again.weight.equal(weights[-1])


def test_shared_out_weights_have_no_running_mean():
    config = TrainConfig(steps=1, batch_size=1, engine="deepspeed", zero=1, ema=0.9)
    with pytest.raises(TrainError, match=r"train\.ema needs whole weights"):
        deepspeed_engine(nn.Linear(1, 1), config)


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


def trained(steps=1):
    """Return a small model and the engine that made some steps with it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 1))
    engine = Single(model, TrainConfig(steps=9, batch_size=1))
    for number in range(steps):
        one_step(engine, number + 1)
    return model, engine


def one_step(engine, number):
    x = torch.linspace(0, number, 3)
    engine.backward(engine.forward(x).square().sum())
    engine.step(0.1)


def test_checkpoint_comes_back_bit_by_bit(tmp_path):
    model, engine = trained()
    checkpoint.save(tmp_path, engine.state(keep=True), {"step": 7, "note": "x"})
    found = checkpoint.find(tmp_path)
    assert (found.folder.name, found.state["note"]) == ("step-00000007", "x")
    for name, value in model.state_dict().items():
        assert torch.equal(found.weights()[name], value)
    moments = found.tensors().moments
    assert set(moments) == {
        f"{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq") for name in model.state_dict()
    }
    # After one step from nothing, a running mean is (1 - beta) x the gradient.
    mean, square = moments["exp_avg.0.weight"], moments["exp_avg_sq.0.weight"]
    torch.testing.assert_close(square, 0.05 * (mean / 0.1) ** 2)
    assert moments["step.0.weight"] == 1


def test_goes_on_from_moments_as_if_never_stopped():
    whole, _ = trained(3)
    _, begun = trained(2)
    torch.manual_seed(1)
    model, engine = trained(0)
    engine.load(begun.state(keep=True))
    one_step(engine, 3)
    pairs = zip(model.parameters(), whole.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_files_are_those_of_safetensors(tmp_path):
    tensors = {
        "a": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "scalar": torch.tensor(3),
        "half": torch.full((3,), 0.5, dtype=torch.bfloat16),
        "none": torch.empty(0, 4),
        "odd": torch.tensor([True, False, True]),
    }
    described = write_tensors(tmp_path / "x", tensors)
    assert described == checkpoint.describe(tmp_path / "x")
    read = safetensors.torch.load_file(tmp_path / "x")
    assert set(read) == set(tensors)
    for name, value in tensors.items():
        assert torch.equal(read[name], value)
        assert read[name].dtype == value.dtype


def test_an_unfinished_checkpoint_is_none(tmp_path):
    checkpoint.save(tmp_path, trained()[1].state(keep=True), {"step": 1})
    whole = tmp_path / "checkpoints" / "step-00000001"
    whole.rename(whole.with_name(".writing-step-00000001"))
    assert checkpoint.newest(tmp_path) is None
    with pytest.raises(CheckpointError, match="expected a run folder with checkpoints"):
        checkpoint.find(tmp_path)


def test_a_changed_byte_is_noticed(tmp_path):
    folder = checkpoint.save(tmp_path, trained()[1].state(keep=True), {"step": 1})
    path = folder / "optimizer" / "moments.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"moments\.safetensors: expected .* the file is damaged"
    ):
        checkpoint.open_whole(folder)


def test_a_checkpoint_of_another_version_is_refused_in_words(tmp_path):
    folder = checkpoint.save(tmp_path, trained()[1].state(keep=True), {"step": 1})
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"schema": 1}))
    with pytest.raises(
        CheckpointError, match="expected checkpoint schema 2, got 1; another version"
    ):
        checkpoint.open_whole(folder)


def test_prune_keeps_the_last_the_best_and_every_so_many(tmp_path):
    for step in range(1, 11):
        checkpoint.save(tmp_path, trained(0)[1].state(keep=True), {"step": step})
    checkpoint.prune(tmp_path, keep=2, every=4, spare=3)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert [int(name[-2:]) for name in kept] == [3, 4, 8, 9, 10]
