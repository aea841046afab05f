"""The command line: exit codes, JSON, one clean line for a failure, shipped configs."""

import json
import logging
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import configs
from hypersigma.__main__ import app
from hypersigma.evaluate import EvaluateConfig
from hypersigma.finetune import FinetuneConfig
from hypersigma.maps import PredictConfig
from hypersigma.pretrain import PretrainConfig

SCHEMAS = {
    "pretrain": PretrainConfig, "finetune": FinetuneConfig, "evaluate": EvaluateConfig,
    "predict": PredictConfig,
}  # fmt: skip
SHIPPED = [path for name in SCHEMAS for path in sorted((configs.CONFIG_DIR / name).glob("*.yaml"))]


@pytest.fixture
def config(world, tmp_path) -> Path:
    path = tmp_path / "pretrain.yaml"
    raw = {
        "run": str(tmp_path / "run"), "shards": str(world.shards), "kind": "spatial",
        "size": "tiny", "bands": 16, "train": {"steps": 2, "batch_size": 2, "device": "cpu"},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(autouse=True)
def own_log_handlers(monkeypatch):
    """Commands log to the streams of their own call, which are closed after it."""
    monkeypatch.setattr(logging.root, "handlers", [])
    ours = logging.getLogger("hypersigma")
    levels = logging.root.level, ours.level
    yield
    logging.root.setLevel(levels[0])
    ours.setLevel(levels[1])


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_pretrain_prints_its_summary(config, tmp_path):
    result = call("pretrain", config, "train.steps=3", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert json.loads(result.stdout)["steps"] == 3


def test_export_prints_what_it_wrote(config, tmp_path):
    assert call("pretrain", config).exit_code == 0
    result = call("export", tmp_path / "run", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["out"], printed["what"]) == (str(tmp_path / "out"), "encoder")
    assert printed["sensors"] == {"hyperion": 24, "ahsi": 20}
    again = call("export", tmp_path / "run", tmp_path / "out", "--what", "model")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert call("export", tmp_path / "run", tmp_path / "x", "--what", "both").exit_code == 2
    shown = " ".join(call("export", "--help").stdout.split())
    assert "Example: hypersigma-train export demo/runs/" in shown


def test_a_failure_is_one_line_and_exit_code_1(config, tmp_path):
    result = call("pretrain", config, f"shards={tmp_path}/none")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("override", "message"),
    [("trian.steps=3", "did you mean 'train'"), ("size=medium", "size"), ("kind", "key=value")],
)
def test_a_wrong_config_is_exit_code_2(config, override, message):
    result = call("pretrain", config, override)
    assert result.exit_code == 2
    assert message in result.stderr or "section.field=value" in result.stderr
    assert "Traceback" not in result.output


def test_no_such_config_is_exit_code_2():
    assert call("finetune", "none.yaml").exit_code == 2
    assert call("finetune").exit_code == 2


@pytest.mark.parametrize("command", list(SCHEMAS))
def test_help_has_an_example(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"Example: hypersigma-train {command} {command}/" in " ".join(result.stdout.split())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_configs_load(path):
    configs.load(SCHEMAS[path.parent.name], path)


@pytest.mark.parametrize("kind", ["spatial", "spectral"])
@pytest.mark.parametrize("size", ["base", "large", "huge"])
def test_published_recipe(kind, size):
    config = configs.load(PretrainConfig, f"pretrain/{kind}_{size}")
    train = config.train
    samples = train.batch_size * train.accumulate
    assert samples == 2048
    assert train.optim.peak_lr(samples) == pytest.approx(1.2e-3)
    assert train.optim.warmup_steps / train.steps == pytest.approx(40 / 1600)
    assert train.steps * samples == pytest.approx(1600 * 447_072, rel=0.01)
    assert (train.optim.weight_decay, train.optim.betas) == (0.05, (0.9, 0.95))
    assert (config.mask_ratio, config.bands, config.size) == (0.75, 100, size)
