"""All engines, and any number of processes, compute the same run."""

import numpy as np
import pytest

from hypersigma import checkpoint
from hypersigma.finetune import finetune
from hypersigma.pretrain import pretrain
from hypersigma.runfolder import TrainError
from hypersigma.runlog import read_metrics

from .launching import trained

CLOSE = 1e-5
OPTIM = {"blr": 0.128, "warmup_steps": 5}
ZERO = {f"zero{stage}": {"engine": "deepspeed", "zero": stage} for stage in range(4)}
ENGINES = {
    "ddp": {"engine": "ddp"},
    **ZERO,
    # Is zero2 without a GPU.
    "offload": {"engine": "deepspeed", "zero": 2, "offload": True},
}


def curve(config, name="loss"):
    return [record.get(name, 0.0) for record in read_metrics(config.run)]


def assert_same_run(one, other, names=("loss", "grad_norm", "val_loss")):
    for name in names:
        np.testing.assert_allclose(curve(one, name), curve(other, name), rtol=CLOSE, err_msg=name)
    assert curve(one, "lr") == curve(other, "lr")


def assert_close(ours, theirs, *, atol):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=CLOSE, atol=atol, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("names", [
    ("ddp", "zero3"), pytest.param(("ddp", *ZERO), marks=pytest.mark.soak),
], ids=["two", "all"])  # fmt: skip
def test_engines_of_two_processes_reach_the_losses_of_one(pretraining, tmp_path, names):
    train = {"steps": 20, "batch_size": 1, "accumulate": 4, "optim": OPTIM}
    model = {"kind": "spectral", "anchor": False, "mask_ratio": 0.5, "bands": 8}
    alone = pretraining("single", train=train, **model)
    pretrain(alone)
    assert curve(alone)[-1] < 0.9 * curve(alone)[0]  # so that it is no standstill
    shared = [pretraining(name, train=train | ENGINES[name], **model) for name in names]
    trained(tmp_path / "out", shared, processes=2)
    theirs = checkpoint.find(alone.run)
    for config in shared:
        assert len(curve(config)) == 20
        assert_same_run(config, alone)
        ours = checkpoint.find(config.run)
        assert ours.state["stream"] == theirs.state["stream"]
        assert_close(ours.tensors().moments, theirs.tensors().moments, atol=1e-7)
        # The bias of keys has no gradient but that of rounding, which AdamW scales up.
        assert_close(ours.weights(), theirs.weights(), atol=5e-4)


@pytest.mark.soak
def test_two_processes_fine_tune_as_one(finetuning, tmp_path):
    train = {"steps": 6, "accumulate": 2, "batch_size": 8}
    alone = finetuning("single", mode="both", ssa=[1], train=train)
    finetune(alone)
    shared = [
        finetuning(name, mode="both", ssa=[1], train=train | ENGINES[name])
        for name in ("ddp", "zero3")
    ]
    trained(tmp_path / "out", shared, processes=2)
    for config in shared:
        assert_same_run(config, alone, ("loss", "grad_norm", "oa", "val_oa"))


def test_a_process_alone_can_have_any_engine(pretraining, tmp_path):
    train = {"steps": 2, "eval_every": 2}
    alone = pretraining("single", train=train)
    pretrain(alone)
    ddp = pretraining("ddp", train=train | {"engine": "ddp"})
    pretrain(ddp)
    assert_same_run(ddp, alone)


@pytest.mark.soak
def test_deepspeed_trains_in_bf16_with_weights_in_float32(pretraining, tmp_path):
    train = {"steps": 4, "accumulate": 2, "precision": "bf16"}
    alone = pretraining("single", train=train)
    pretrain(alone)
    shared = [pretraining(name, train=train | ENGINES[name]) for name in ("offload", "zero3")]
    trained(tmp_path / "out", shared, processes=2)
    for config in shared:
        # Much nearer than bf16 itself, which has three digits.
        np.testing.assert_allclose(curve(config), curve(alone), rtol=1e-3)
        weights = checkpoint.find(config.run).weights().values()
        assert {str(value.dtype) for value in weights} == {"torch.float32"}
        assert any((value != value.bfloat16().float()).any() for value in weights)


def test_a_new_run_begins_with_the_weights_of_another(pretraining, tmp_path):
    first = pretraining("first", train={"steps": 3})
    pretrain(first)
    second = pretraining("second", init=str(first.run), train={"steps": 1, "optim": {"blr": 1e-12}})
    pretrain(second)
    state = checkpoint.find(second.run)
    assert (state.state["step"], state.state["stream"]["position"]) == (1, 2)
    assert_close(state.weights(), checkpoint.find(first.run).weights(), atol=1e-6)
    with pytest.raises(TrainError, match=r"init: .* is not of this model"):
        pretrain(pretraining("third", init=str(first.run), kind="spectral"))


def test_refuses_batches_that_cannot_be_shared_out(pretraining):
    config = pretraining(train={"accumulate": 3}).train
    assert config.parts(3) == 1
    with pytest.raises(TrainError, match=r"a multiple of the 2 processes.*got 3"):
        config.parts(2)
