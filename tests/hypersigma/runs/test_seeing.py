"""What a run shows of itself: its rate, pictures, and how well its features tell classes apart."""

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hypersigma.mae import spatial_mae
from hypersigma.pretrain import pretrain
from hypersigma.probe import LabelledTiles, Probe, ProbeConfig, nearest
from hypersigma.processes import generator
from hypersigma.runfolder import TrainError
from hypersigma.runlog import in_short, read_metrics
from hypersigma.speed import Speed, peak
from storage.schema import SchemaError
from storage.stream import open_shards, read_tile, select

from .conftest import BANDS

SIDE = 64


def test_rate_is_that_of_the_products_of_matrices():
    model = nn.Sequential(nn.Linear(30, 50), nn.ReLU(), nn.Linear(50, 7))
    speed = Speed(model, batches=4, processes=2, bf16=False)
    assert speed.of(1.0) == {}  # nothing counted yet
    for rows in (11, 99):  # the first batch alone counts
        with speed.counting():
            model(torch.zeros(rows, 30)).sum().backward()
    # Forward both, backward of weights both, of inputs the second alone.
    flop = 2 * 11 * (30 * 50 * 2 + 50 * 7 * 3)
    found = speed.of(0.5)
    assert found["tflops"] == pytest.approx(flop * 4 / 0.5 / 1e12)
    speed._peak = 1e6
    assert speed.of(0.5)["peak_share"] == pytest.approx(flop * 4 / 0.5 / 2 / 1e6)


def test_attention_on_a_cpu_counts():
    q, k, v = (torch.zeros(2, 3, n, 8, requires_grad=True) for n in (10, 14, 14))
    speed = Speed(nn.Linear(1, 1), batches=1, processes=1, bf16=False)
    with speed.counting():
        nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()
    forward = 2 * 3 * 2 * 2 * 10 * 14 * 8  # q k and its product with v
    assert speed._flop == pytest.approx(forward * 3.5)  # backward: q k again, and four more


def test_a_step_of_a_model_has_torchs_own_count():
    model = spatial_mae("tiny", bands=8)

    def step():
        x = torch.randn(2, 8, SIDE, SIDE)
        valid = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
        out = model(x, None, valid_BHW=valid, generator=generator(0), hidden_only=True)
        out.loss.backward()

    model.eval()  # no sample skips a branch
    speed = Speed(model, batches=1, processes=1, bf16=False)
    with speed.counting():
        step()
    with FlopCounterMode(display=False) as counter:
        step()
    # Torch's lacks a CPU's attention: the visible and all tokens, by 4 x L x L x D, 3.5 times.
    visible, tokens, size = model.keep, model.pos_embed.shape[1], model.size
    attention = 3.5 * 4 * 2 * (
        visible**2 * size.dim * len(model.blocks)
        + tokens**2 * size.decoder_dim * (size.decoder_depth - 1)
        + tokens * (tokens - visible) * size.decoder_dim
    )  # fmt: skip
    assert speed._flop == pytest.approx(counter.get_total_flops() + attention, rel=1e-6)


def test_a_cpu_has_a_peak_that_is_measured():
    assert 1e8 < peak(torch.device("cpu"), bf16=False) < 1e15


def test_the_progress_line_says_the_rate():
    record = {"loss": 1.0, "tflops": 0.0123, "peak_share": 0.61}
    assert in_short(record, 1.0) == "loss 1.0000  0.0123 TFLOP/s (61% of peak)"


@pytest.mark.parametrize("kind", ["spatial", "spectral"])
def test_tensorboard_shows_losses_tiles_and_errors(pretraining, kind):
    config = pretraining(kind=kind, train={"steps": 4, "eval_every": 2})
    pretrain(config)
    records = read_metrics(config.run)
    assert all(record["tflops"] > 0 and 0 < record["peak_share"] < 2 for record in records)
    shown = EventAccumulator(str(config.run / "tensorboard"), size_guidance={"images": 0})
    shown.Reload()
    assert [event.step for event in shown.Scalars("loss")] == [1, 2, 3, 4]
    losses = [event.value for event in shown.Scalars("loss")]
    np.testing.assert_allclose(losses, [record["loss"] for record in records], rtol=1e-6)
    assert [event.step for event in shown.Scalars("val_loss")] == [2, 4]
    names = {"band_errors", "spectrum", "reconstruction/0", "reconstruction/1"}
    assert set(shown.Tags()["images"]) == names
    for name in names:
        assert [event.step for event in shown.Images(name)] == [2, 4]
        assert shown.Images(name)[0].width > 500


def test_pictures_change_nothing_of_a_run(pretraining, monkeypatch):
    losses = []
    for run in ("seen", "unseen"):
        config = pretraining(run, train={"steps": 5, "eval_every": 1})
        pretrain(config)
        losses.append([record["loss"] for record in read_metrics(config.run)])
        monkeypatch.setattr("hypersigma.pretrain._pictures", lambda *_: {})
        monkeypatch.setattr("hypersigma.speed.Speed.of", lambda *_: {})
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", ["spatial", "spectral"])
def test_features_are_tried_on_labelled_tiles(pretraining, world, kind):
    probe = {"labels": world.labels, "sensor": "hyperion", "tiles": 8}
    config = pretraining(kind=kind, probe=probe, train={"steps": 4, "eval_every": 2})
    summary = pretrain(config)
    for name in ("val_knn_oa", "val_linear_oa", "val_largest_class_oa"):
        assert 0 <= summary[name] <= 1
        assert [r["step"] for r in read_metrics(config.run) if name in r] == [2, 4]


def test_a_probe_knows_tiles_apart_by_features_that_do(world):
    shards = open_shards(world.shards)
    config = ProbeConfig(labels=world.labels, sensor="hyperion", neighbours=1)
    probe = Probe.of(shards, config)
    for tiles, split in ((probe.train, "train"), (probe.held_out, "val")):
        assert set(tiles.rows) == set(select(shards, split=split, sensor="hyperion").tolist())
        for row, label in zip(tiles.rows.tolist(), tiles.label.tolist(), strict=True):
            entry = {n: shards.index[n][row].as_py() for n in ("scene_id", "row", "col")}
            raster = np.load(world.labels / f"{entry['scene_id']}.npy")
            window = (slice(None), slice(entry["col"], entry["col"] + SIDE))
            stored = np.isfinite(world.cubes[entry["scene_id"]]).any(0)
            counts = np.bincount((raster * stored)[window].ravel(), minlength=4)[1:]
            assert counts[label] == counts.max()
    classes = {r: int(n) for t in (probe.train, probe.held_out)
               for r, n in zip(t.rows.tolist(), t.label, strict=True)}  # fmt: skip
    ids = {shards.index["tile_id"][row].as_py(): row for row in classes}

    def telling(batch):
        assert batch.stored.shape[1] == 5
        rows = [ids[name] for name in batch.tile_ids]
        np.testing.assert_array_equal(batch.stored[0], read_tile(shards, rows[0])[:5])
        return nn.functional.one_hot(torch.tensor([classes[row] for row in rows]), 3)

    known = set(probe.train.label.tolist())
    found = probe.scores(telling, bands=5, size=3)
    share = np.mean([int(n) in known for n in probe.held_out.label])
    assert found["val_knn_oa"] >= share
    assert found["val_linear_oa"] >= share
    blind = probe.scores(lambda batch: torch.ones(len(batch.stored), 2), bands=5, size=3)
    assert blind["val_linear_oa"] == blind["val_largest_class_oa"]


def test_the_nearest_choose_together():
    train = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1], [0.2, 1]])
    label = torch.tensor([2, 2, 0, 1, 1])
    found = torch.tensor([[9.0, 0.1], [0, 5]])
    assert nearest(train, label, found, 1, 3).tolist() == [2, 0]
    assert nearest(train, label, found, 3, 3).tolist() == [2, 1]
    assert nearest(train, label, found, 99, 3).tolist() == [1, 1]  # two of each: the lower


def test_a_probe_without_two_classes_is_refused(world, monkeypatch):
    shards = open_shards(world.shards)
    one = LabelledTiles(shards, np.array([0]), torch.tensor([1]))
    monkeypatch.setattr(LabelledTiles, "of", lambda *_: one)
    with pytest.raises(SchemaError, match=r"two classes or more for probe, got 1 tiles"):
        Probe.of(shards, ProbeConfig(labels=world.labels, sensor="hyperion"))


def test_a_probe_needs_whole_weights(pretraining, world):
    probe = {"labels": world.labels, "sensor": "hyperion"}
    config = pretraining(probe=probe, train={"engine": "deepspeed", "zero": 3})
    with pytest.raises(TrainError, match=r"train\.zero up to 2"):
        pretrain(config)


def test_all_bands_of_a_sensor_are_few_enough_for_tests():
    assert min(BANDS.values()) >= 16  # `pretraining` takes so many
