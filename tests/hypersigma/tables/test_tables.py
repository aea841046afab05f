import dataclasses
import json
import os
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sklearn.metrics import roc_curve
from typer.testing import CliRunner

import configs
from configs import ConfigError
from hypersigma.__main__ import app
from hypersigma.tables import runner
from hypersigma.tables.config import ExperimentConfig, TablesConfig, cells
from hypersigma.tables.figures import roc
from hypersigma.tables.results import cells_of, rows, summary
from hypersigma.tasks import crops
from hypersigma.train import InterruptedRunError

TRAIN = {"steps": 2, "batch_size": 2, "device": "cpu"}
SHIPPED = sorted((configs.CONFIG_DIR / "bench").glob("tasks*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def wanted(tmp_path):
    """Return a function that writes the config of tables of tiny scenes."""

    def write(*kinds, **changes):
        experiments = []
        for kind, task in kinds:
            made = {"kind": kind, "rows": 32, "columns": 32, "bands": 16}
            scene = tmp_path / f"{kind}.yaml"
            scene.write_text(yaml.safe_dump(
                {"title": kind, "task": task, "where": "here", "synthetic": made}
            ))  # fmt: skip
            config = tmp_path / f"task_{task}.yaml"
            config.write_text(yaml.safe_dump({
                "run": "x", "task": task, "data": str(scene), "mode": "both", "size": "tiny",
                "patch_size": 4, "options": {"window": 16, "overlap": 8}, "train": TRAIN,
                "split": {"n_per_class": 5, "block": 10, "guard": 1},
            }))  # fmt: skip
            experiments.append({"title": task, "config": str(config)})
        path = tmp_path / "tables.yaml"
        plain = {"out": str(tmp_path / "out"), "seeds": [0, 1], "experiments": experiments}
        path.write_text(yaml.safe_dump(plain | changes))
        return path

    return write


def test_cells_are_run_once_and_the_tables_are_of_all(wanted, tmp_path, monkeypatch):
    path = wanted(("target", "anomaly_detection"), ("change", "change_detection"))
    plain = yaml.safe_load(path.read_text())
    plain["experiments"][0] |= {"methods": ["rx"], "modes": ["spatial"]}
    plain["experiments"][1] |= {"methods": ["cva", "ir_mad"], "modes": []}
    path.write_text(yaml.safe_dump(plain))
    result = CliRunner().invoke(app, ["bench", "tasks", str(path), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["cells"], told["run"]) == (1 + 2 + 4, 7)
    out = tmp_path / "out"
    long = pq.read_table(out / "results.parquet").to_pylist()
    areas = [r for r in long if r["metric"] == "auc_d_f"]
    assert [(r["name"], r["seed"], r["mode"]) for r in areas] == [
        ("rx", 0, None), ("HyperSIGMA tiny spatial", 0, "spatial"),
        ("HyperSIGMA tiny spatial", 1, "spatial"),
    ]  # fmt: skip
    text = (out / "results.md").read_text()
    kappas = [r["value"] for r in long if (r["name"], r["metric"]) == ("ir_mad", "kappa")]
    assert f"{np.mean(kappas):.3f} ± {np.std(kappas, ddof=1):.3f}" in text
    page = (out / "results.html").read_text()
    assert page.count("data:image/png") == 3
    assert "http" not in page.split("</style>")[1].replace("data:image", "")

    monkeypatch.setattr(runner, "run_cell", lambda cell: pytest.fail(f"ran {cell} again"))
    again = configs.load(TablesConfig, path)
    assert runner.bench_tasks(again)["run"] == 0
    assert (out / "results.md").read_text() == text


def test_a_cell_that_fails_stops_no_other(wanted, tmp_path, monkeypatch):
    path = wanted(("target", "anomaly_detection"))
    plain = yaml.safe_load(path.read_text())
    plain["experiments"][0] |= {"modes": ["spatial"], "methods": ["rx"]}
    plain["experiments"][0]["set"] = ["pretrained.spatial=nowhere"]
    path.write_text(yaml.safe_dump(plain))
    result = CliRunner().invoke(app, ["bench", "tasks", str(path)])
    assert result.exit_code == 1
    assert "2 of 3 cells failed, and the same command tries them again" in result.output
    assert "HyperSIGMA tiny spatial, seed 1: CheckpointError: nowhere" in result.output
    assert "| rx |" in (tmp_path / "out/results.md").read_text()


def test_a_table_that_is_stopped_goes_on(wanted, tmp_path, monkeypatch):
    path = wanted(("target", "anomaly_detection"))
    plain = yaml.safe_load(path.read_text())
    plain["experiments"][0] |= {"methods": [], "modes": ["spatial"], "set": ["train.steps=4"]}
    path.write_text(yaml.safe_dump(plain))
    config = configs.load(TablesConfig, path)
    undisturbed = runner.bench_tasks(dataclasses.replace(config, out=tmp_path / "undisturbed"))
    batches = crops.crop_batches

    def ask_to_stop(*arguments, **options):
        for number, batch in enumerate(batches(*arguments, **options)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr("hypersigma.tasks.detecting.crop_batches", ask_to_stop)
        with pytest.raises(InterruptedRunError, match=r"stopped after step \d of 4; the same"):
            runner.bench_tasks(config)
    assert not list((tmp_path / "out/cells").glob("*/cell.json"))  # nor was the next one begun
    resumed = runner.bench_tasks(config)
    tables = [pq.read_table(t["parquet"]).drop(["seconds"]) for t in (undisturbed, resumed)]
    assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_processes_share_the_cells_out(wanted, tmp_path):
    path = wanted(("target", "target_detection"))
    plain = yaml.safe_load(path.read_text())
    plain["experiments"][0] |= {"modes": [], "methods": ["sam", "ace"]}
    path.write_text(yaml.safe_dump(plain | {"processes": 2}))
    told = runner.bench_tasks(configs.load(TablesConfig, path))
    assert told["run"] == 4
    alone = runner.bench_tasks(
        configs.load(TablesConfig, path, [f"out={tmp_path / 'alone'}", "processes=1"])
    )
    tables = [pq.read_table(one["parquet"]).drop(["seconds"]) for one in (told, alone)]
    assert tables[0].equals(tables[1])


def test_cells_have_one_name_where_they_compute_one_thing(wanted):
    path = wanted(("classes", "segmentation"))

    def names(**changes):
        plain = yaml.safe_load(path.read_text())
        plain["experiments"][0] |= changes
        found = configs.check(TablesConfig, plain, where="here")
        return {(c.name, c.seed): c.folder.name for c in cells(found)}

    before = names()
    assert len(set(before.values())) == len(before) == 2 * (3 + 3)
    longer = names(set=["train.steps=3"])
    same = {key for key in before if before[key] == longer[key]}
    assert {name for name, _ in same} == {"svm", "random_forest", "cnn_1d"}
    other = names(set=["split.n_per_class=6"])
    assert not {key for key in before if before[key] == other[key]}
    labelled = names(models={"": [], "longer": ["train.steps=9"]}, modes=["both"], methods=[])
    assert {name for name, _ in labelled} == {
        "HyperSIGMA tiny both", "HyperSIGMA tiny both, longer"
    }  # fmt: skip


def test_wrong_configs_are_refused_before_anything_runs(wanted):
    path = wanted(("classes", "segmentation"))
    plain = yaml.safe_load(path.read_text())
    plain["experiments"][0]["methods"] = ["rx"]
    path.write_text(yaml.safe_dump(plain))
    result = CliRunner().invoke(app, ["bench", "tasks", str(path)])
    assert result.exit_code == 2
    assert "expected methods of segmentation: svm, random_forest, cnn_1d; got rx" in result.output
    config = configs.load(TablesConfig, path)
    twice = dataclasses.replace(config, experiments=config.experiments * 2)
    with pytest.raises(ConfigError, match="different titles"):
        list(cells(twice))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_tables_load(path):
    config = configs.load(TablesConfig, path)
    found = list(cells(config))
    assert len({cell.folder for cell in found}) == len(found)
    assert all(isinstance(one, ExperimentConfig) for one in config.experiments)


def test_the_best_of_a_column_is_marked():
    def record(name, seed, rmse, sad):
        return {"experiment": "e", "name": name, "seed": seed, "seconds": 1.0,
                "metrics": {"rmse": rmse, "sad": sad},
                "config": {"task": "unmixing", "run": f"out/cells/{name}{seed}"}}  # fmt: skip

    found = rows([record("a", 0, 0.1, 3.0), record("a", 1, 0.3, 5.0), record("b", 0, 0.25, None)])
    assert [row.folder for row in found] == ["cells/a0", "cells/b0"]
    assert found[0].means == pytest.approx((0.2, 4.0))
    assert found[0].deviations == pytest.approx((np.std([0.1, 0.3], ddof=1), np.sqrt(2)))
    assert cells_of(found, {"rmse": -1, "sad": -1}) == [
        [("0.200 ± 0.141", True), ("4.000 ± 1.414", True)], [("0.250", False), ("", False)]
    ]  # fmt: skip


def test_the_summary_says_who_is_ahead():
    def record(name, mode, seed, rmse):
        return {"experiment": "e", "name": name, "method": None if mode else name, "seed": seed,
                "seconds": 1.0, "metrics": {"rmse": rmse, "sad": 1.0},
                "config": {"task": "unmixing", "mode": mode or "both", "run": "a"}}  # fmt: skip

    lines = summary([
        record("poor", None, 0, 0.9), record("good", None, 0, 0.25), record("m", "both", 0, 0.1),
        record("m", "both", 1, 0.3), record("n", "spatial", 0, 0.5),
    ])  # fmt: skip
    assert lines == [
        ["e", "rmse ↓", "0.250 (good)", "0.500", "", "0.200 ± 0.141", "+0.050"]
    ]  # fmt: skip


def test_the_curve_is_the_known_one():
    rng = np.random.default_rng(0)
    score, target = rng.normal(size=(20, 30)), rng.random((20, 30)) < 0.1
    false, found = roc(score, target)
    wanted = roc_curve(target.ravel(), score.ravel(), drop_intermediate=False)
    np.testing.assert_allclose(false, wanted[0])
    np.testing.assert_allclose(found, wanted[1])
