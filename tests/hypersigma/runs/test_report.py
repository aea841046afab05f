"""The page about a run: what it says is what its files say, and nothing in it is markup."""

import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from hypersigma.finetune import finetune
from hypersigma.pretrain import pretrain
from hypersigma.report import parts, read_run, report
from hypersigma.report_figures import thinned
from hypersigma.runfolder import TrainError

from .test_commands import call

EMPTY = {"meta", "img", "br"}


class Page(HTMLParser):
    """Text, images and balance of a page."""

    def __init__(self, path):
        super().__init__()
        self.open, self.text, self.images, self.links = [], "", [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in EMPTY:
            self.open.append(tag)
        found = dict(attrs)
        self.links += [found[name] for name in ("src", "href") if name in found]
        if tag == "img":
            self.images.append(found)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data + "\n"


def test_says_what_the_run_says(pretraining):
    config = pretraining(train={"steps": 25, "checkpoint_every": 20})
    summary = pretrain(config)
    result = report(config.run)
    assert result["report"] == str(config.run / "report.html")
    page = Page(config.run / "report.html")
    assert "pretrain, finished, 25 steps; data tiny v1" in page.text
    assert f"{summary['last_loss']:.4g}" in page.text
    assert f"{summary['val_loss']:.4g}" in page.text
    for errors in summary["reconstruction"].values():
        assert f"{errors['model']:.4f}" in page.text
    assert result["diagnosis"] in page.text
    for text in ("step-00000020", "step-00000025", "train.optim.blr", "packages.torch", "hyperion"):
        assert text in page.text
    assert len(page.images) == 5
    for image in page.images:
        head, _, data = image["src"].partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
        assert image["alt"]
    assert len(page.links) == len(page.images)


def test_a_run_on_its_way_has_a_page(pretraining, tmp_path):
    config = pretraining(train={"steps": 6, "checkpoint_every": 2})
    pretrain(config)
    for name in ("summary.json", "reconstruction.png", "band_errors.png", "environment.json"):
        (config.run / name).unlink()
    lines = (config.run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (config.run / "metrics.jsonl").write_text("".join(lines[:4]))
    out = tmp_path / "new" / "page.html"
    result = report(config.run, out)
    assert result["state"] == "not finished: step 4 of 6"
    page = Page(out)
    assert result["state"] in page.text
    assert "not recorded" in page.text
    assert len(page.images) == 3
    first, second, third = map(json.loads, lines[:3])
    for loss, warned in ((0.9, False), (1.0, True)):
        third |= {"val_loss": loss, "val_loss_mean_spectrum": 1.0}
        records = "".join(json.dumps(one) + "\n" for one in (first, second, third))
        (config.run / "metrics.jsonl").write_text(records)
        report(config.run, out)
        assert ("nothing is learnt yet" in Page(out).text) == warned
    (config.run / "metrics.jsonl").unlink()
    assert report(config.run, out)["diagnosis"] is None
    assert "step 0 of 6" in Page(out).text


def test_a_classifier_has_its_accuracy(finetuning):
    config = finetuning()
    finetune(config)
    report(config.run)
    page = Page(config.run / "report.html")
    assert "held-out accuracy" in page.text
    assert any("accuracy" in image["alt"] for image in page.images)


def test_nothing_of_a_run_is_markup(pretraining):
    evil = "<script>alert(1)</script>'\"&"
    config = pretraining(evil.replace("/", "_"), train={"steps": 3})
    pretrain(config)
    said = json.loads((config.run / "config.json").read_text())
    said["data"]["dataset"] = said["config"]["kind"] = said["task"] = evil
    (config.run / "config.json").write_text(json.dumps(said))
    (config.run / "checkpoints" / "step-<b>").mkdir()
    report(config.run)
    text = (config.run / "report.html").read_text()
    assert "<script" not in text
    assert "<b>alert" not in text
    assert "step-<b>" not in text
    assert Page(config.run / "report.html").text.count(evil) == 3


def test_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(TrainError, match=r"expected a run's folder with config\.json, found none"):
        report(tmp_path)
    result = call("report", tmp_path)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_the_command_prints_where_the_page_is(pretraining, tmp_path):
    config = pretraining(train={"steps": 3})
    pretrain(config)
    result = call("report", config.run, tmp_path / "r.html", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["report"] == str(tmp_path / "r.html")
    assert list(parts(read_run(config.run)))


def test_thinned_keeps_the_mean_of_what_it_joins():
    x, y = np.arange(10.0), np.arange(10.0) ** 2
    few_x, few_y = thinned(x, y, 5)
    np.testing.assert_allclose(few_x, [0.5, 2.5, 4.5, 6.5, 8.5])
    np.testing.assert_allclose(few_y, (y[::2] + y[1::2]) / 2)
    assert thinned(x, y, 10) == (pytest.approx(x), pytest.approx(y))
