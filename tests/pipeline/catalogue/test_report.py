import json
import re
import shlex
from urllib.parse import unquote

import mlcroissant
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.catalogue import card as cards
from pipeline.catalogue import certificate, figures, report, stac, words
from pipeline.catalogue.card import gather
from pipeline.catalogue.report import write_report
from storage.schema import SchemaError
from tests.storage.test_export import dated, forget_outlines
from tests.storage.tiles import build, make_store

pytestmark = pytest.mark.usefixtures("no_statistics")
CERTIFICATE = {
    "passed": True,
    "promised_m": 1000.0,
    "places": [
        {"splits": ["train", "val"], "distance_m": 1043.54},
        {"splits": ["train", "test"], "distance_m": None},
    ],
    "scenes_in_several_splits": 2,
    "copies": {"across_splits": 0},
    "shares": {"all": {"train": 0.75, "val": 0.25}},
    "breaches": [],
    "warnings": ["few tiles"],
}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_page_counts_every_window(location, tmp_path):
    card = write_report(location, tmp_path / "card")
    text = (tmp_path / "card/index.html").read_text(encoding="utf-8")
    # 5 + 0 + 8 kept, and 2 rejected in each of three scenes.
    assert "13 tiles of 64 x 64 pixels from 3 hyperspectral scenes (ahsi and hyperion)" in text
    assert words.counts(card).rows == [
        ("kept", 8, 5, 13),
        ("rejected: nodata", 2, 4, 6),
        ("all windows", 10, 9, 19),
    ]
    splits = {row[0]: row[1:] for row in words.splits(card).rows}
    table = pq.read_table(tmp_path / "card/index.parquet").to_pandas()
    for sensor, part in table.groupby("sensor", observed=True):
        assert splits[sensor] == tuple((part.split == s).sum() for s in ("train", "val", "test"))
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in re.sub(r"https://developers[^<]*", "", text.split("</style>")[1])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"tiles_in": 8}, "s1: 8 in, 5 kept \\+ 2 rejected"),
        ({"tiles_kept": 4, "tiles_in": 6}, "s1: 4 kept, 5 in the index"),
    ],
)
def test_refuses_counts_that_do_not_add_up(location, tmp_path, monkeypatch, broken, message):
    real = cards.scene_table

    def wrong(group, tiles):
        rows = real(group, tiles).to_pylist()
        rows[0] |= broken
        return pa.Table.from_pylist(rows, real(group, tiles).schema)

    monkeypatch.setattr(cards, "scene_table", wrong)
    with pytest.raises(SchemaError, match=f"counts of v2 do not add up: {message}"):
        write_report(location, tmp_path / "card")
    assert [path.name for path in tmp_path.iterdir()] == ["a store"]


def test_code_on_the_card_runs(location, tmp_path, monkeypatch):
    write_report(location, tmp_path / "out/card", "v1")
    monkeypatch.chdir(tmp_path / "out/card")
    text = (tmp_path / "out/card/README.md").read_text(encoding="utf-8")
    names = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, names)  # noqa: S102
    assert names["pixels"].shape == (4, 64, 64)
    assert len(names["tiles"]) == 5
    for line in re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1].splitlines():
        program, *arguments = shlex.split(line)
        assert program == "hypersigma-data"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    assert read(tmp_path / "out/card/shards/manifest.json")["tiles"] == 5


def test_statistics_are_drawn_and_listed(location, tmp_path, some_statistics):
    card = write_report(location, tmp_path / "card")
    text = (tmp_path / "card/index.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 4
    assert "hyperion: 6 bands, 400 to 1400 nm; 320 pixels of the train split" in text
    assert "ahsi: 6 bands, 400 to 1400 nm; 640 pixels of all splits (none is in train)" in text
    row = words.bands(card.bands["ahsi"]).rows[1]
    assert row == (
        2,
        "410.0",
        "640",
        "0.205",
        "0.1025",
        "0.0205",
        "0.1025",
        "0.205",
        "0.3075",
        "0.3895",
    )


def test_an_older_store_says_what_it_lacks(tmp_path, monkeypatch):
    forget_outlines(monkeypatch)
    place = tmp_path / "store"
    build(make_store(place), dated("s1"))
    card = write_report(place, tmp_path / "card")
    text = (tmp_path / "card/index.html").read_text(encoding="utf-8")
    assert not card.outlined
    assert "points are centres" in text
    assert "This version has no band statistics" in text
    assert "hypersigma-data audit ../store makes one" in text
    item = read(tmp_path / "card/items/s1.json")
    assert item["properties"]["hypersigma:footprint"] == "hull of the kept tiles' centres"


def test_certificate_is_shown(location, tmp_path):
    write_report(location, tmp_path / "card", None, CERTIFICATE)
    text = (tmp_path / "card/index.html").read_text(encoding="utf-8")
    assert "certificate: passed" in text
    assert "Warning: few tiles" in text
    assert certificate.rows(CERTIFICATE) == [
        ("least distance promised between splits", "1000.0 m"),
        ("nearest tiles of train and val", "1043.5 m"),
        ("nearest tiles of train and test", "one has no tile"),
        ("scenes with tiles in several splits", "2"),
        ("near-duplicates across splits", "0"),
        ("shares", "train 75.0%, val 25.0%"),
    ]
    assert certificate.verdict({"passed": False}) == "BREACHED"


def test_refuses_the_certificate_of_another_version(location):
    other = CERTIFICATE | {"version": "v1", "snapshot": gather(location, "v1").version.snapshot}
    assert gather(location, "v1", other).certificate == other
    with pytest.raises(SchemaError, match=r"the certificate is of v1, snapshot .* expected v2"):
        gather(location, "v2", other)


def test_the_certificate_of_the_version_itself_is_found(location, monkeypatch):
    stored = {"certificate": json.dumps(CERTIFICATE)}
    monkeypatch.setattr(cards, "version_metadata", lambda *_: stored)
    assert gather(location).certificate == CERTIFICATE


def test_stac_is_valid_and_hangs_together(location, tmp_path):
    write_report(location, tmp_path / "card")
    found = pystac.Collection.from_file(str(tmp_path / "card/collection.json"))
    stac.validate(found.to_dict(include_self_link=False, transform_hrefs=False))
    items = {item.id: item for item in found.get_items()}
    assert set(items) == {"s1", "s2", "s3"}
    for item in items.values():
        stac.validate(item.to_dict(include_self_link=False, transform_hrefs=False))
        assert item.get_collection().id == "demo"
        folder = (tmp_path / "card/items" / unquote(item.assets["tiles"].href)).resolve()
        assert folder == location
    assert (items["s3"].geometry, items["s3"].bbox) == (None, None)
    facts = items["s1"].properties
    assert (facts["proj:code"], facts["proj:shape"]) == ("EPSG:32632", [256, 256])
    assert (facts["view:sun_azimuth"], "view:incidence_angle" in facts) == (200.0, False)
    assert facts["hypersigma:tiles"]["rejected"] == {"nodata": 2}
    assert items["s1"].datetime.isoformat() == "2003-05-06T10:13:51+00:00"
    bands = items["s1"].assets["tiles"].to_dict()["bands"]
    assert bands[1] == {
        "name": "B009",
        "eo:center_wavelength": 0.41,
        "eo:full_width_half_max": 0.0105,
    }


def test_footprint_of_an_item_holds_its_tiles(location, tmp_path):
    card = write_report(location, tmp_path / "card")
    west, south, east, north = read(tmp_path / "card/items/s1.json")["bbox"]
    tiles = card.tiles.to_pandas().query("scene_id == 's1'")
    # Half a tile of 1.92 km beyond the outermost centres.
    assert (tiles.lat.min() - south) * 111.14 == pytest.approx(0.96, rel=1e-3)
    assert (east - tiles.lon.max()) * 78.85 == pytest.approx(0.96, rel=1e-3)
    assert (west < tiles.lon.min(), north > tiles.lat.max()) == (True, True)


def test_refuses_what_is_not_stac(location):
    card = gather(location)
    wrong = stac.collection(card, "../store")
    del wrong["license"]
    with pytest.raises(SchemaError, match=r"demo: not valid STAC 1.1.0: 'license' is a required"):
        stac.validate(wrong)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_croissant_is_read_by_its_own_library(location, tmp_path):
    card = write_report(location, tmp_path / "card")
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "card/croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    rows = list(dataset.records(record_set="tiles"))
    assert len(rows) == 13
    assert {row["tiles/tile_id"].decode() for row in rows} == set(card.tiles["tile_id"].to_pylist())


def test_an_earlier_report_is_replaced(location, tmp_path):
    write_report(location, tmp_path / "card", "v2")
    write_report(location, tmp_path / "card", "v1")
    assert read(tmp_path / "card/report.json")["version"] == "v1"
    assert not (tmp_path / "card/items/s2.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a store", "card"]


def test_a_failed_report_leaves_the_earlier_one(location, tmp_path, monkeypatch):
    write_report(location, tmp_path / "card", "v1")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(report, "croissant", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(location, tmp_path / "card", "v2")
    assert read(tmp_path / "card/report.json")["version"] == "v1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a store", "card"]


def test_refuses_a_folder_that_holds_something_else(location, tmp_path):
    write_report(location, tmp_path / "card")
    (tmp_path / "card/notes.txt").write_text("mine")
    with pytest.raises(
        SchemaError, match=r"must be new, empty or an earlier report, got notes.txt"
    ):
        write_report(location, tmp_path / "card")
    with pytest.raises(SchemaError, match="must be new, empty"):
        write_report(location, location)
    assert (tmp_path / "card/notes.txt").read_text() == "mine"


def test_names_from_a_product_are_escaped(location, tmp_path, monkeypatch):
    real = cards.scene_table

    def named(group, tiles):
        rows = real(group, tiles).to_pylist()
        rows[0]["platform"] = "<script>|"
        return pa.Table.from_pylist(rows, real(group, tiles).schema)

    monkeypatch.setattr(cards, "scene_table", named)
    write_report(location, tmp_path / "card")
    assert "<script>" not in (tmp_path / "card/index.html").read_text(encoding="utf-8")
    assert "<script>\\|" in (tmp_path / "card/README.md").read_text(encoding="utf-8")


def test_command_reports_in_json(location, tmp_path):
    (tmp_path / "audit.json").write_text(json.dumps(CERTIFICATE))
    arguments = [location, tmp_path / "card", "--version", "v1", "--json"]
    arguments += ["--certificate", tmp_path / "audit.json"]
    done = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["tiles"], facts["in"], facts["rejected"]) == (5, 9, {"nodata": 4})
    refused = CliRunner().invoke(
        app, ["report", str(location), str(tmp_path / "card"), "--version", "v9"]
    )
    assert (refused.exit_code, "version must be one of" in refused.stderr) == (1, True)


def test_map_brings_both_sides_of_the_date_line_together():
    lon = np.array([179.9, -179.9, np.nan])[:, None]
    points = np.stack([lon, np.zeros((3, 1))], axis=-1)
    assert np.nanmax(figures._together(points)[..., 0]) == pytest.approx(180.1)


def test_a_map_of_the_world_is_drawn_in_points(location, monkeypatch):
    drawn = []
    real = figures._points
    monkeypatch.setattr(figures, "_points", lambda *given: drawn.append(given) or real(*given))
    card = gather(location)
    assert figures.footprints(card).startswith(b"\x89PNG")
    monkeypatch.setattr(figures, "_MANY", 12)
    assert figures.footprints(card).startswith(b"\x89PNG")
    assert [len(places) for _, places, *_ in drawn] == [13]
