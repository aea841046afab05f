"""Exports: what is in them, that they work where a run does, and what they refuse."""

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

import configs
from hypersigma import checkpoint, maps
from hypersigma import export as module
from hypersigma.checkpoint import CheckpointError
from hypersigma.classifier import open_classifier
from hypersigma.evaluate import EvaluateConfig, evaluate
from hypersigma.export import export
from hypersigma.finetune import FinetuneConfig, finetune
from hypersigma.pretrain import PretrainConfig, pretrain
from hypersigma.runfolder import TrainError
from storage.schema import SchemaError
from storage.store import open_version, scene_dataset

KINDS = ["spatial", "spectral"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    """Two pretraining runs, and a classifier of both encoders that has learnt the landscape."""
    root = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        raw = {
            "run": root / kind, "shards": str(world.shards), "kind": kind, "size": "tiny",
            "bands": 16, "train": {"steps": 2, "batch_size": 2, "device": "cpu"},
        }  # fmt: skip
        pretrain(configs.check(PretrainConfig, raw, where="test"))
    raw = {
        "run": root / "both", "shards": world.shards, "labels": world.labels, "sensor": "hyperion",
        "mode": "both", "size": "tiny", "n_per_class": 60, "window": 3, "patch_size": 3,
        "ssa": [0],
        "train": {
            "steps": 40, "batch_size": 32, "eval_every": 40, "device": "cpu",
            "optim": {"blr": 0.03, "warmup_steps": 5, "betas": [0.9, 0.99]},
        },
    }  # fmt: skip
    finetune(configs.check(FinetuneConfig, raw, where="test"))
    return root


@pytest.fixture
def altered(runs, tmp_path):
    """Return a function that copies a run and changes what its checkpoint says of its inputs."""

    def make(name, change):
        shutil.copytree(runs / name, tmp_path / name)
        for path in (tmp_path / name).rglob("state.json"):
            state = json.loads(path.read_text())
            change(state["spectral"])
            path.write_text(json.dumps(state))
        return tmp_path / name

    return make


def part_of_scene(world):
    """Return 8 rows of one tile of a scene; the other pixels are not valid."""
    scene = scene_dataset(open_version(world.store), "h1").isel(tile=[2]).load()
    return scene.assign(valid=scene.valid & (scene.valid.cumsum("y") <= 8))


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_is_exported_without_its_decoder(runs, tmp_path, kind):
    result = export(runs / kind, tmp_path / "out")
    assert (result["what"], result["kind"], result["step"]) == ("encoder", kind, 2)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.safetensors", "config.json", "spectral.json", "README.md"}
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    weights = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    whole = checkpoint.find(runs / kind).weights()
    assert set(whole) - set(weights) == {k for k in whole if k.startswith(("decoder", "mask_"))}
    assert all(torch.equal(value, whole[name]) for name, value in weights.items())
    assert result["parameters"] == sum(value.numel() for value in weights.values())


def test_the_contract_says_what_to_feed_and_nothing_names_a_folder(runs, world, tmp_path):
    out = tmp_path / "out"
    export(runs / "both", out)
    spectral = json.loads((out / "spectral.json").read_text())
    manifest = json.loads((world.shards / "manifest.json").read_text())
    known = spectral["sensors"]["hyperion"]
    np.testing.assert_allclose(known["wavelengths"][0], np.linspace(450, 950, 24))
    assert known["fwhm"] == [10.0] * 24
    assert (known["units"], known["scale"], known["standardized"]) == ("1", 1.0, True)
    statistics = manifest["sensors"]["hyperion"]["statistics"]
    np.testing.assert_allclose(known["mean"], statistics["mean"])
    assert spectral["data"] == {
        key: manifest[key] for key in ("dataset", "version", "snapshot", "recipe_hash")
    }
    for path in out.glob("*.[jm]*"):
        assert str(runs) not in path.read_text(), path
        assert str(world.shards) not in path.read_text(), path
    card = (out / "README.md").read_text()
    assert "| hyperion | 24 | 450-950 nm | 1 = stored / 1 |" in card
    assert "Classes: water, grass, soil." in card


@pytest.mark.parametrize("kind", KINDS)
def test_fine_tuning_from_an_export_is_fine_tuning_from_its_run(runs, tmp_path, finetuning, kind):
    export(runs / kind, tmp_path / "out")
    from_run, from_export = (
        finetune(finetuning(name, mode=kind, pretrained={kind: str(path)}, train={"steps": 2}))
        for name, path in (("a", runs / kind), ("b", tmp_path / "out"))
    )
    assert from_run["last_loss"] == from_export["last_loss"]
    report = from_export["pretrained"][kind]
    assert report["from"] == str(tmp_path / "out")
    assert report["loaded"] == from_run["pretrained"][kind]["loaded"]
    assert report["data"]["recipe_hash"] == "abc"
    expected = (
        "16 bands to 24 at 450-950 nm by their place in the window" if kind == "spatial" else ""
    )
    assert report["bands"].startswith(expected)
    assert bool(report["bands"]) == bool(expected)


def test_a_classifier_is_the_same_from_its_export(runs, world, tmp_path):
    out = tmp_path / "out"
    assert export(runs / "both", out)["what"] == "model"
    scene, results = part_of_scene(world), []
    for path in (runs / "both", out):
        raw = {
            "checkpoint": path, "shards": world.shards, "labels": world.labels, "max_pixels": 100,
            "out": tmp_path / "metrics.json", "device": "cpu",
        }  # fmt: skip
        measured = evaluate(configs.check(EvaluateConfig, raw, where="test"))
        fitted, words = maps.check_scene(scene, open_classifier(path, CPU))
        assert not words
        labels = maps.classify_scene(fitted, scene, batch_size=256)
        results.append((measured["confusion"], measured["trained_on"], labels.tolist()))
    assert results[0] == results[1]
    assert measured["controls"] is None  # they need the training pixels, which are not handed on


def test_each_encoder_of_a_classifier_is_to_be_had(runs, tmp_path, finetuning):
    with pytest.raises(TrainError, match="two encoders: give --what spatial or --what spectral"):
        export(runs / "both", tmp_path / "none", "encoder")
    with pytest.raises(TrainError, match="has no spectral encoder, it is spatial"):
        export(runs / "spatial", tmp_path / "none", "spectral")
    assert not (tmp_path / "none").exists()
    for kind in KINDS:
        export(runs / "both", tmp_path / kind, kind)
    given = {kind: str(tmp_path / kind) for kind in KINDS}
    config = finetuning(mode="both", ssa=[0], pretrained=given, train={"steps": 1})
    reports = finetune(config)["pretrained"]
    for kind in KINDS:
        assert "blocks.0.attn.sampling_offsets.weight" in reports[kind]["loaded"]
        assert not (reports[kind]["resized"])
        assert not (reports[kind]["bands"])
    with pytest.raises(CheckpointError, match="`finetune`, got one of 'encoder'"):
        open_classifier(tmp_path / "spatial", CPU)
    with pytest.raises(TrainError, match=r"kind None; .*--what encoder"):
        finetune(finetuning("other", pretrained={"spatial": str(runs / "both")}))


def test_a_whole_autoencoder_and_an_export_of_an_export(runs, tmp_path):
    export(runs / "spatial", tmp_path / "mae", "model")
    export(tmp_path / "mae", tmp_path / "again", "encoder")
    export(runs / "spatial", tmp_path / "encoder")
    with pytest.raises(TrainError, match="holds an encoder alone: leave out --what"):
        export(tmp_path / "encoder", tmp_path / "none", "model")
    whole = checkpoint.find(tmp_path / "mae")
    assert whole.state["task"] == "pretrain"
    assert whole.weights().keys() == checkpoint.find(runs / "spatial").weights().keys()
    for name in ("model.safetensors", "spectral.json"):
        assert (tmp_path / "again" / name).read_bytes() == (
            tmp_path / "encoder" / name
        ).read_bytes()


def test_a_damaged_export_is_refused(runs, tmp_path):
    export(runs / "spatial", tmp_path / "out")
    for name in ("model.safetensors", "spectral.json"):
        path = tmp_path / "out" / name
        kept = path.read_bytes()
        path.write_bytes(kept[:-2] + b"x" + kept[-1:])
        with pytest.raises(CheckpointError, match="the file is damaged"):
            checkpoint.find(tmp_path / "out")
        path.write_bytes(kept)
    checkpoint.find(tmp_path / "out")
    config = tmp_path / "out" / "config.json"
    whole = json.loads(config.read_text())
    without = {key: value for key, value in whole.items() if key != "config"}
    for said in ({}, [], whole | {"files": []}, whole | {"files": {}}, without):
        config.write_text(json.dumps(said))
        with pytest.raises(CheckpointError, match=r"readable config\.json"):
            checkpoint.find(tmp_path / "out")


def test_an_export_is_written_whole_or_not_at_all(runs, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(module, "card", fail)
    with pytest.raises(OSError, match="no space"):
        export(runs / "spatial", tmp_path / "out")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    export(runs / "spatial", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(TrainError, match="out is not empty: give another folder"):
        export(runs / "spatial", tmp_path / "out")


def test_another_sensor_is_adapted_to_and_other_units_are_refused(altered, finetuning, tmp_path):
    def hyperion_alone(spectral):
        del spectral["ahsi"]

    export(altered("spatial", hyperion_alone), tmp_path / "alone")
    config = finetuning(
        sensor="ahsi", pretrained={"spatial": str(tmp_path / "alone")}, train={"steps": 1},
        val_pixels=5,
    )  # fmt: skip
    report = finetune(config)["pretrained"]["spatial"]
    assert report["sensors"] == ["hyperion"]
    assert report["bands"].startswith("16 bands to 20 at 450-950 nm by their place in the window")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("units", "W", "expected values in 'W' stored x 1, .* got '1' .*; use data made with"),
        ("scale", 4000.0, "stored x 4000, .* got '1' stored x 1; use data made with"),
    ],
)
def test_other_units_or_scale_are_refused_with_what_to_do(
    altered, finetuning, tmp_path, key, value, message
):
    def change(spectral):
        for entry in spectral.values():
            entry[key] = value

    export(altered("spatial", change), tmp_path / "out")
    with pytest.raises(SchemaError, match=message):
        finetune(finetuning(pretrained={"spatial": str(tmp_path / "out")}))
    raw = {"run": tmp_path / "raw", "standardize": False}
    with pytest.raises(TrainError, match="set standardize: True here too"):
        finetune(finetuning(pretrained={"spatial": str(tmp_path / "out")}, **raw))


def test_a_map_of_other_bands_is_made_from_resampled_spectra(runs, world, tmp_path, caplog):
    export(runs / "both", tmp_path / "out")
    classifier = open_classifier(tmp_path / "out", CPU)
    scene = part_of_scene(world)
    fewer = scene.isel(band=slice(None, None, 2))
    fitted, words = maps.check_scene(fewer, classifier)
    assert words == "24 bands to 12 at 450-928 nm by wavelength (seen at 450-950 nm)"
    assert words in caplog.text
    labels = maps.classify_scene(fitted, fewer, batch_size=256)
    np.testing.assert_array_equal(labels[:8, 128:192] > 0, True)
    assert (labels == world.truth["h1"])[:8, 128:192].mean() > 0.9
    half = scene.isel(band=slice(None, 9))
    with pytest.raises(SchemaError, match=r"h1: 24 bands to 9 .* at least 50% of the bands"):
        maps.check_scene(half, classifier)
    far = scene.assign_coords(wavelength=scene.wavelength + 900)
    with pytest.raises(SchemaError, match="h1: expected bands within 450-950 nm"):
        maps.check_scene(far, classifier)
