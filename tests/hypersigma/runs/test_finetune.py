"""Fine-tuning: which pixels are seen, exact resume, pretrained encoders."""

import json

import numpy as np
import pytest
import torch

from hypersigma import checkpoint, pixels
from hypersigma.finetune import finetune
from hypersigma.pretrain import pretrain
from hypersigma.runfolder import TrainError
from hypersigma.runlog import read_metrics
from storage.schema import SchemaError
from storage.stream import open_shards, read_tile, select


@pytest.fixture(scope="module")
def shards(world):
    return open_shards(world.shards)


def test_labelled_pixels_are_those_of_the_split(world, shards):
    found = pixels.labelled(shards, world.labels, sensor="hyperion", split="train")
    expected = 0
    for scene in ("h1", "h2"):
        label = np.load(world.labels / f"{scene}.npy")[:, :128]
        valid = np.isfinite(world.cubes[scene][0, :, :128])
        expected += np.count_nonzero(label * valid)
    assert len(found) == expected
    for tile, y, x, label in zip(found.tile, found.y, found.x, found.label, strict=True):
        scene, row, col = (
            shards.index[name][int(tile)].as_py() for name in ("scene_id", "row", "col")
        )
        assert world.truth[scene][row + y, col + x] == label + 1
        assert col + x < 128
        if tile > 2:
            break


def test_draws_so_many_of_each_class(world, shards):
    every = pixels.labelled(shards, world.labels, sensor="hyperion", split="train")
    drawn = pixels.draw_per_class(every, 7, ["water", "grass", "soil"], seed=0)
    assert np.bincount(drawn.label).tolist() == [7, 7, 7]
    again = pixels.draw_per_class(every, 7, ["water", "grass", "soil"], seed=0)
    other = pixels.draw_per_class(every, 7, ["water", "grass", "soil"], seed=1)
    np.testing.assert_array_equal(drawn.x, again.x)
    assert (drawn.x != other.x).any()


@pytest.mark.parametrize("size", [1, 4, 5, 9])
def test_windows_are_reflected_at_the_edge_of_the_tile(size):
    tile = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    y, x = np.array([0, 63, 2, 30]), np.array([0, 1, 63, 31])
    got = pixels.windows(torch.from_numpy(tile), y, x, size).numpy()
    before, after = size // 2, size - size // 2 - 1
    padded = np.pad(tile, ((0, 0), (before, after), (before, after)), mode="reflect")
    for number in range(4):
        part = padded[:, y[number] : y[number] + size, x[number] : x[number] + size]
        np.testing.assert_array_equal(got[number], part)
    np.testing.assert_array_equal(got[:, :, size // 2, size // 2], tile[:, y, x].T)


def test_reads_no_tile_of_the_test_split_and_trains_on_train_alone(finetuning, shards, monkeypatch):
    read, trained = [], []
    for module in ("pixels", "classifier"):
        monkeypatch.setattr(f"hypersigma.{module}.read_tile", _noting(read))
    from hypersigma import data

    monkeypatch.setattr(data, "windows", _noting_windows(trained))
    finetune(finetuning())
    split = np.array(shards.index["split"].to_pylist())
    assert set(split[read]) == {"train", "val"}
    # Every window that was trained on is one of a tile of the training split, in full.
    rows = select(shards, split="train", sensor="hyperion")
    tiles = torch.stack([torch.from_numpy(read_tile(shards, int(row))) for row in rows])
    known = {tile.numpy().tobytes() for tile in tiles}
    assert trained
    assert {tile.numpy().tobytes() for tile in trained} <= known


def test_goes_on_as_if_never_stopped(finetuning, monkeypatch):
    train = {"checkpoint_every": 2}
    whole, cut = finetuning("whole", train=train), finetuning("cut", train=train)
    expected = finetune(whole)
    _interrupt_after(monkeypatch, 4)
    with pytest.raises(TrainError, match=r"stopped after step 4 of 6, .* the same command goes on"):
        finetune(cut)
    monkeypatch.undo()
    got = finetune(cut)
    for name in ("loss", "oa", "grad_norm", "val_oa", "val_kappa"):
        assert [r.get(name) for r in read_metrics(cut.run)] == [
            r.get(name) for r in read_metrics(whole.run)
        ]
    assert got["best"] == expected["best"]
    for name, value in checkpoint.newest(whole.run).weights().items():
        assert torch.equal(value, checkpoint.newest(cut.run).weights()[name]), name


def test_sampling_attention_by_block_and_checkpointing_of_activations(finetuning):
    plain = finetuning("plain", mode="both", ssa=[1], train={"steps": 2})
    saving = finetuning("saving", mode="both", ssa=[1], train={"steps": 2, "recompute": True})
    assert finetune(plain)["last_loss"] == finetune(saving)["last_loss"]
    offsets = [k for k in checkpoint.newest(plain.run).weights() if "sampling_offsets.w" in k]
    assert sorted(k.split(".attn")[0] for k in offsets) == ["spatial.blocks.1", "spectral.blocks.1"]


def test_the_best_checkpoint_on_val_stays(finetuning):
    config = finetuning(train={"steps": 12, "eval_every": 2, "keep": 1})
    summary = finetune(config)
    scores = {r["step"]: r["val_oa"] for r in read_metrics(config.run) if "val_oa" in r}
    assert summary["best"]["score"] == max(scores.values())
    assert summary["best"]["step"] == max(scores, key=scores.get)  # the first of equals
    assert checkpoint.find(config.run).state["step"] == summary["best"]["step"]
    assert checkpoint.newest(config.run).state["step"] == 12


def test_starts_from_pretrained_encoders_and_says_what_became_of_their_keys(
    pretraining, finetuning
):
    runs = {}
    for kind in ("spatial", "spectral"):
        config = pretraining(kind, kind=kind)
        pretrain(config)
        runs[kind] = str(config.run)
    config = finetuning(mode="both", pretrained=runs, train={"steps": 1, "optim": {"blr": 1e-12}})
    report = finetune(config)["pretrained"]
    assert report["spatial"]["step"] == report["spectral"]["step"] == 6
    assert any(text.startswith("patch_embed.proj.weight") for text in report["spatial"]["resized"])
    assert "blocks.0.attn.qkv.weight" in report["spectral"]["loaded"]
    assert checkpoint.newest(config.run).state["pretrained"] == report
    weights = checkpoint.newest(config.run).weights()
    before = checkpoint.find(pretraining("spectral", kind="spectral").run).weights()
    torch.testing.assert_close(
        weights["spectral.blocks.0.mlp.fc1.weight"], before["blocks.0.mlp.fc1.weight"]
    )


def test_training_pixels_are_kept_for_the_record(finetuning, world, shards):
    config = finetuning()
    finetune(config)
    with np.load(config.run / "training_pixels.npz", allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    assert kept["spectra"].shape == (90, 24)
    state = checkpoint.newest(config.run).state["spectral"]["hyperion"]
    for number in (0, 40, 89):
        scene, row, col = str(kept["tile_id"][number]).replace("_r", "_c").split("_c")
        y, x = int(row) + kept["y"][number], int(col) + kept["x"][number]
        assert world.truth[scene][y, x] == kept["label"][number] + 1
        expected = (world.cubes[scene][:, y, x] - state["mean"]) / state["std"]
        np.testing.assert_allclose(kept["spectra"][number], expected, atol=1e-4)


def test_refuses_a_pretrained_encoder_of_the_other_kind(pretraining, finetuning):
    config = pretraining(kind="spectral")
    pretrain(config)
    with pytest.raises(TrainError, match="is a checkpoint of kind 'spectral'"):
        finetune(finetuning(pretrained={"spatial": str(config.run)}))
    with pytest.raises(TrainError, match="mode spatial has no such encoder"):
        finetune(finetuning(pretrained={"spectral": str(config.run)}))


def test_refuses_labels_of_another_grid(finetuning, world, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    np.save(tmp_path / "h1.npy", np.ones((60, 256), np.uint8))
    with pytest.raises(SchemaError, match=r"h1\.npy: expected labels on the scene's own grid"):
        finetune(finetuning(labels=tmp_path))


def test_refuses_a_class_without_a_name(finetuning, world, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(["a"]))
    np.save(tmp_path / "h1.npy", np.load(world.labels / "h1.npy"))
    with pytest.raises(SchemaError, match=r"expected classes 0\.\.1 .* got 3"):
        finetune(finetuning(labels=tmp_path))


def test_refuses_labels_of_other_scenes(finetuning, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(["a"]))
    with pytest.raises(SchemaError, match="found none; check that the file names are scene ids"):
        finetune(finetuning(labels=tmp_path))


def _noting(rows):
    def read(shards, row, **window):
        rows.append(row)
        return read_tile(shards, row, **window)

    return read


def _noting_windows(tiles):
    def cut(tile, y, x, size):
        tiles.append(tile)
        return pixels.windows(tile, y, x, size)

    return cut


def _interrupt_after(monkeypatch, step):
    """Send Ctrl-C during a step; the loop finishes that step."""
    import os
    import signal

    from hypersigma import finetune as module

    usual, calls = module.window_losses, []

    def losses(*arguments, **options):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return usual(*arguments, **options)

    monkeypatch.setattr(module, "window_losses", losses)
