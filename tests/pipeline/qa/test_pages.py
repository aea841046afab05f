"""Pages: self-contained, escaped, whole; their numbers; and what the command does on failures."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.qa import figures
from pipeline.qa.gather import gather
from pipeline.qa.page import compose
from pipeline.qa.pages import draw, write_page
from pipeline.readers import find_scenes, open_scene
from pipeline.recipe import load_recipe
from pipeline.split import SplitConfig
from storage.schema import SchemaError
from tests.pipeline import raw_products as raw

SPLIT = SplitConfig(block_km=50)
EVIL = "<script>alert('x')</script>\"'&"


@pytest.fixture(scope="module")
def quality(tmp_path_factory):
    flags = np.zeros((242, 130, 140), "u1")
    flags[[9, 99], :, 5] = 2
    path = raw.write_l1r(
        tmp_path_factory.mktemp("qa") / "p", raw.hyperion_dn(130, 140), flags=flags
    )
    return gather(open_scene(path), load_recipe("reference"), SPLIT)


class Tags(HTMLParser):
    """Collects the tags and their attributes, and finds out whether they are closed."""

    def __init__(self):
        super().__init__()
        self.seen, self.attributes, self.text, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_a_page_needs_no_other_file(quality, tmp_path):
    page = write_page(quality, tmp_path)
    text = page.read_text(encoding="utf-8")
    tags = parsed(text)
    assert not {"script", "link", "iframe", "object"} & set(tags.seen)
    links = [value for name, value in tags.attributes if name in ("src", "href")]
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert "url(" not in text
    assert "http" not in re.sub(r"data:image/png;base64,[\w+/=]+", "", text)
    files = sorted(file.name for file in (tmp_path / quality.facts["scene_id"]).iterdir())
    assert len(files) == len(links)
    assert {"detectors.png", "smile.png", "snr.png", "stripes.png"} <= set(files)


def test_text_from_products_is_harmless(quality):
    facts = {
        **quality.facts, "scene_id": EVIL, "platform": EVIL, "level": EVIL, "acquired": EVIL,
        "crs": EVIL, "problems": [EVIL], "sources": [{"name": EVIL, "bytes": 1, "sha256": EVIL}],
    }  # fmt: skip
    steps = ({**quality.steps[0], "source": EVIL, EVIL: {EVIL: EVIL}}, *quality.steps[1:])
    fates = dataclasses.replace(quality.fates, counts={"in": 1, "kept": 0, "rejected": {EVIL: 1}})
    masks = dataclasses.replace(quality.masks, unavailable={EVIL: EVIL})
    evil = dataclasses.replace(
        quality, facts=facts, steps=steps, fates=fates, masks=masks, recipe=EVIL
    )
    page = compose(evil, {})
    tags = parsed(page)
    assert "script" not in tags.seen
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert sum("alert('x')" in text for text in tags.text) >= 8
    assert page.count("<script") == 0


def test_an_id_that_leads_elsewhere_is_no_file(quality, tmp_path):
    facts = {**quality.facts, "scene_id": "../elsewhere"}
    with pytest.raises(SchemaError, match="scene_id"):
        write_page(dataclasses.replace(quality, facts=facts), tmp_path / "qa")
    assert list(tmp_path.iterdir()) == []


def test_the_numbers_are_strict_json_and_reconcile(quality, tmp_path):
    page = write_page(quality, tmp_path)

    def refuse(text):
        raise AssertionError(text)

    found = json.loads(page.with_suffix(".json").read_text(), parse_constant=refuse)
    counts = found["tiles"]["counts"]
    assert counts["in"] == counts["kept"] + sum(counts["rejected"].values()) == 4
    assert len(found["tiles"]["each"]) == 4
    assert found["summary"]["bad_detectors"] == 0  # the recipe does not look for them
    assert found["summary"]["tiles_kept"] == counts["kept"]
    assert found["bands"]["number"] == quality.bands.number.tolist()
    assert {len(found["bands"][name]) for name in ("snr", "noise", "stripe_index_after")} == {175}
    assert found["masks"]["unavailable"]["snow"]
    assert found["facts"]["sources"] == quality.facts["sources"]


def test_the_page_says_what_was_done(quality):
    text = "".join(parsed(compose(quality, draw(quality))).text)
    for words in (
        "What was done: recipe reference", "name: hyperglobal", "max dead: 0.1", "scale: 4000",
        "digital number [counts]"[1:], "the recipe reference has no step for it",
        "2 dead detectors", "all windows of 64 x 64 pixels",
    ):  # fmt: skip
        assert words in text, words
    assert "{" not in text.partition("</style>")[2] or "'" not in text


def test_a_scene_without_a_valid_pixel_has_a_page(tmp_path):
    path = raw.write_l1r(tmp_path / "p", np.zeros((242, 20, 30), "i2"))
    empty = gather(open_scene(path), load_recipe("reference"), SPLIT)
    text = write_page(empty, tmp_path / "qa").read_text(encoding="utf-8")
    for words in ("no valid pixel", "smaller than one window", "No pixel has a whole spectrum"):
        assert words in text


def test_lines_have_gaps_where_bands_are_left_out():
    nm = np.array([400.0, 410, 420, 500, 510])
    x, y = figures.with_gaps(nm, np.arange(5.0))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(x)), [3])
    np.testing.assert_array_equal(np.isnan(x), np.isnan(y))
    assert len(figures.with_gaps(nm[:1], np.zeros(1))[0]) == 1


def test_failing_scenes_are_named_and_the_others_done(tmp_path):
    good = raw.write_l1t(tmp_path / "good", raw.hyperion_dn(70, 80))
    twin = raw.write_l1t(tmp_path / "twin", raw.hyperion_dn(70, 80))
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"PK")
    arguments = ["inspect", str(bad), str(good), str(twin), "--html", str(tmp_path / "qa")]
    result = CliRunner().invoke(app, [*arguments, "--recipe", "reference"])
    assert result.exit_code == 1
    assert "bad.zip" in result.stderr
    assert f"scene EO1H1930242013205110KF_1T is also {good}" in result.stderr
    names = {path.name for path in (tmp_path / "qa").iterdir()}
    stem = "EO1H1930242013205110KF_1T"
    assert names == {stem, f"{stem}.html", f"{stem}.json"}
    wrong = CliRunner().invoke(app, [*arguments, "--recipe", "none_such"])
    assert wrong.exit_code == 2


def test_inspect_tells_of_several_scenes(tmp_path):
    one = raw.write_l1t(tmp_path / "one", raw.hyperion_dn(70, 80))
    two = raw.write_ahsi(tmp_path / "two", raw.ahsi_dn(70, 80))
    result = CliRunner().invoke(app, ["inspect", str(one), str(two), "--json"])
    assert [facts["sensor"] for facts in json.loads(result.stdout)] == ["hyperion", "ahsi"]
    single = CliRunner().invoke(app, ["inspect", str(one), "--json"])
    assert json.loads(single.stdout)["sensor"] == "hyperion"


@pytest.mark.skipif(not raw.SHARED.is_dir(), reason=f"no real products at {raw.SHARED}")
@pytest.mark.parametrize("family", ["_1T", "_1R", "AHSI"])
def test_real_products(family, tmp_path):
    path = next(path for path in find_scenes(raw.SHARED) if family in path.name)
    found = gather(open_scene(path), load_recipe("reflectance"), SPLIT)
    assert found.fates.counts["kept"] >= 9
    ratio = found.bands.snr
    assert 50 < np.median(ratio[np.isfinite(ratio)]) < 1000
    if family == "_1R":
        before, after = found.bands.stripes_before, found.bands.stripes_after
        assert np.nanmedian(before) > 5 * np.nanmedian(after)
        assert found.detectors.bad.sum() == 44
    text = write_page(found, tmp_path).read_text(encoding="utf-8")
    parsed(text)
