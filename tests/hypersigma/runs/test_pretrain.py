"""Pretraining: learning, held-out loss, exact resume, refusals."""

import json
import multiprocessing
import shutil
import time

import numpy as np
import pytest
import torch

from hypersigma import checkpoint, inputs
from hypersigma.data import scaling, tile_batches
from hypersigma.pretrain import pretrain
from hypersigma.runfolder import TrainError
from hypersigma.runlog import read_metrics
from storage.schema import SchemaError
from storage.stream import Stream, open_shards, read_tile, select

from .conftest import BANDS

KINDS = ["spatial", "spectral"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_folder_says_what_came_out(pretraining, kind):
    config = pretraining(kind=kind, train={"steps": 25, "eval_every": 20})
    summary = pretrain(config)
    records = read_metrics(config.run)
    assert [record["step"] for record in records] == list(range(1, 26))
    assert all(
        {"loss", "loss_mean_spectrum", "lr", "samples_per_s", "data_wait"} <= set(record)
        for record in records
    )
    losses = [record["loss"] for record in records]
    assert summary["first_loss"] == pytest.approx(np.mean(losses[:5]))
    assert summary["last_loss"] == pytest.approx(np.mean(losses[-20:]))
    assert summary["ratio"] == pytest.approx(summary["last_loss"] / summary["first_loss"])
    assert [record["step"] for record in records if "val_loss" in record] == [20, 25]
    assert summary["val_loss"] == records[-1]["val_loss"]
    assert json.loads((config.run / "summary.json").read_text()) == summary
    assert (config.run / "reconstruction.png").stat().st_size > 1000
    assert list((config.run / "tensorboard").iterdir())


def test_learns_a_tile_by_heart(pretraining, world, monkeypatch):
    # One tile, one window of bands: what is left after 60 steps is less than half of it.
    monkeypatch.setattr("hypersigma.pretrain.select", lambda shards, split: np.array([0]))
    config = pretraining(
        kind="spectral", bands=20, augment=False, mask_ratio=0.5, anchor=False,
        train={"steps": 60, "batch_size": 1, "optim": {"blr": 0.5, "warmup_steps": 5}},
    )  # fmt: skip
    pretrain(config)
    losses = [record["loss"] for record in read_metrics(config.run)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_told_band_by_band_beside_those_of_knowing_no_model(pretraining, kind):
    config = pretraining(kind=kind, train={"steps": 2})
    summary = pretrain(config)
    curves = json.loads((config.run / "reconstruction.json").read_text())
    assert set(curves) == set(summary["reconstruction"])
    for sensor, errors in summary["reconstruction"].items():
        others = {"mean_spectrum", "nearest_visible"} | (
            {"interpolated"} if kind == "spectral" else set()
        )
        assert set(errors) == {"model"} | others
        assert errors["nearest_visible"] > 0
        # Inputs are standardised by the training split, whose mean spectrum is 0 then.
        assert errors["mean_spectrum"] == pytest.approx(1, abs=0.15)
        for name, total in errors.items():
            each = [e for e in curves[sensor][name] if e is not None]
            assert len(curves[sensor][name]) == len(curves[sensor]["wavelength"]) == BANDS[sensor]
            assert min(each) <= total <= max(each)
    assert (config.run / "band_errors.png").stat().st_size > 1000


@pytest.mark.parametrize("options", [{"mask_block": 2}, {"norm_pix": True}])
def test_other_masks_and_targets_train(pretraining, world, options):
    summary = pretrain(pretraining(**options, train={"steps": 2}))
    assert np.isfinite([summary["last_loss"], summary["val_loss"]]).all()


def test_mean_spectrum_of_standardised_inputs_is_zero(pretraining, world):
    # So its loss is the mean square of the inputs: about 1 over the training split.
    summary = pretrain(pretraining(train={"steps": 20, "optim": {"blr": 1e-9}}))
    assert summary["loss_mean_spectrum"] == pytest.approx(1, abs=0.15)


def test_plain_scaling_is_stored_over_scale(world):
    shards = open_shards(world.shards)
    contracts = inputs.from_manifest(shards.manifest, standardize=False)
    rows = select(shards, split="train")
    stream = Stream(shards, rows, batch_size=3, bands=5, seed=0)
    batch, _ = next(tile_batches(stream, None, augment=False))
    got = scaling(contracts, torch.device("cpu")).inputs(batch)
    expected = np.nan_to_num(batch.stored.numpy())  # scale is 1
    np.testing.assert_array_equal(got.x.numpy(), expected)


def test_standardised_inputs_match_the_pixels_of_the_training_split(world):
    shards = open_shards(world.shards)
    contract = inputs.from_manifest(shards.manifest, standardize=True)["ahsi"]
    train = np.delete(world.cubes["a1"][:, :, :128], 3, axis=0)  # columns of split train
    mean, std = np.nanmean(train, (1, 2)), np.nanstd(train, (1, 2))
    np.testing.assert_allclose(np.delete(contract.mean, 3), mean, rtol=1e-5)
    np.testing.assert_allclose(np.delete(contract.std, 3), std, rtol=1e-4)
    assert (contract.mean[3], contract.std[3]) == (0, 1)  # never measured
    row = select(shards, split="val", sensor="ahsi")[0]
    stored = torch.from_numpy(read_tile(shards, int(row)))
    x = inputs.standardize(
        stored[None], torch.tensor([contract.shift]), torch.tensor([contract.spread]),
        torch.tensor([1.0]),
    )[0].numpy()  # fmt: skip
    oracle = (stored.numpy() - np.array(contract.mean)[:, None, None]) / np.array(contract.std)[
        :, None, None
    ]
    np.testing.assert_allclose(x, np.nan_to_num(oracle), atol=1e-4)


def test_integer_fill_is_no_measurement():
    stored = torch.tensor([[[[5, 0], [-32767, -3]]]], dtype=torch.int16)
    one = torch.ones(1, 1)
    x = inputs.standardize(stored, 10 * one, 2 * one, torch.ones(1))
    assert x.flatten().tolist() == [-2.5, 0, 0, -6.5]


@pytest.mark.parametrize("kind", KINDS)
def test_goes_on_as_if_never_stopped(pretraining, monkeypatch, kind):
    whole = pretraining("whole", kind=kind, train={"checkpoint_every": 2})
    pretrain(whole)
    cut = pretraining("cut", kind=kind, train={"checkpoint_every": 2})
    _die_in_step(monkeypatch, 5)
    with pytest.raises(RuntimeError, match="died"):
        pretrain(cut)
    monkeypatch.undo()
    assert len(read_metrics(cut.run)) == 4
    pretrain(cut)
    for name in ("loss", "loss_mean_spectrum", "grad_norm", "lr"):
        expected = [record[name] for record in read_metrics(whole.run)]
        assert [record[name] for record in read_metrics(cut.run)] == expected
    assert _weights(whole.run) == _weights(cut.run)


def test_workers_change_nothing_and_end_with_the_run(pretraining):
    alone, helped = pretraining("alone"), pretraining("helped", workers=1)
    summary = pretrain(alone)
    assert pretrain(helped)["last_loss"] == summary["last_loss"]
    assert _weights(alone.run) == _weights(helped.run)
    deadline = time.monotonic() + 30
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def test_workers_may_change_on_the_way(pretraining):
    first = pretrain(pretraining())
    assert pretrain(pretraining(workers=2, cache_gb=1)) == first  # it is the same, finished run


def test_skips_a_torn_checkpoint(pretraining, caplog):
    caplog.set_level("INFO")
    config = pretraining(train={"checkpoint_every": 2, "keep": 3})
    pretrain(config)
    before = _weights(config.run)
    newest = checkpoint.newest(config.run).folder
    model = newest / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    (config.run / "summary.json").unlink()
    pretrain(config)
    assert "skipped a torn checkpoint" in caplog.text
    assert "step-00000004" in caplog.text  # went on from the one before
    assert _weights(config.run) == before
    assert len(read_metrics(config.run)) == 6


def test_a_finished_run_does_nothing(pretraining, caplog):
    caplog.set_level("INFO")
    config = pretraining()
    first = pretrain(config)
    times = {path: path.stat().st_mtime_ns for path in config.run.rglob("*") if path.is_file()}
    del times[config.run / "config.json"]
    assert pretrain(config) == first
    assert "is finished" in caplog.text
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_refuses_the_folder_of_another_run(pretraining):
    pretrain(pretraining())
    with pytest.raises(TrainError, match=r"train\.seed is 0 there and 1 here; .*another `run`"):
        pretrain(pretraining(train={"seed": 1}))


def test_device_may_change_on_the_way(pretraining):
    first = pretrain(pretraining(train={"device": "cpu"}))
    assert pretrain(pretraining(train={"device": "auto", "log_every": 1})) == first


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_of_activations_gives_the_same_losses(pretraining, kind):
    plain, saving = (
        pretraining(str(flag), kind=kind, train={"recompute": flag}) for flag in (False, True)
    )
    assert pretrain(plain)["last_loss"] == pretrain(saving)["last_loss"]
    assert _weights(plain.run) == _weights(saving.run)


def test_keeps_the_last_checkpoints(pretraining):
    config = pretraining(train={"checkpoint_every": 1, "keep": 2})
    pretrain(config)
    names = sorted(path.name for path in (config.run / "checkpoints").iterdir())
    assert names == ["step-00000005", "step-00000006"]


def test_state_names_data_and_bands(pretraining, world):
    config = pretraining()
    pretrain(config)
    state = checkpoint.find(config.run).state
    manifest = open_shards(world.shards).manifest
    assert state["data"]["snapshot"] == manifest["snapshot"]
    assert state["data"]["recipe_hash"] == "abc"
    assert state["spectral"]["ahsi"]["band"] == manifest["sensors"]["ahsi"]["band"]
    assert state["config"]["bands"] == 16
    assert state["step"] == 6
    assert state["stream"] == {"epoch": 1, "position": 6}  # 6 tiles in train, 2 a step


def test_gradients_of_small_batches_add_up_to_the_large_ones(pretraining):
    config = pretraining(train={"accumulate": 3, "steps": 2})
    pretrain(config)
    assert checkpoint.find(config.run).state["stream"] == {"epoch": 1, "position": 6}
    assert [r["lr"] for r in read_metrics(config.run)] == pytest.approx(
        [1.5e-4 * 6 / 256, 0.5 * 1.5e-4 * 6 / 256]
    )


def test_stops_at_a_loss_that_is_not_finite(pretraining, monkeypatch):
    monkeypatch.setattr(
        "hypersigma.pretrain.mae_losses",
        lambda forward, model, batch, rng: {"loss": model.mask_token.sum() * torch.nan},
    )
    with pytest.raises(TrainError, match="step 1: expected a finite loss and gradient, got nan"):
        pretrain(pretraining())


def test_refuses_more_bands_than_a_sensor_has(pretraining):
    with pytest.raises(SchemaError, match="bands must be from 1 to 20, got 22"):
        pretrain(pretraining(bands=22))


def test_refuses_shards_without_a_manifest(pretraining, world, tmp_path):
    shutil.copytree(world.shards, tmp_path / "cut")
    (tmp_path / "cut" / "manifest.json").unlink()
    with pytest.raises(SchemaError, match=r"has no manifest\.json"):
        pretrain(pretraining(shards=str(tmp_path / "cut")))


def _die_in_step(monkeypatch, step):
    from hypersigma import train

    usual = train.learning_rate

    def die(at, **settings):
        if at + 1 == step:
            raise RuntimeError("died")
        return usual(at, **settings)

    monkeypatch.setattr(train, "learning_rate", die)


def _weights(run):
    return {
        name: value.numpy().tobytes() for name, value in checkpoint.newest(run).weights().items()
    }
