import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from storage import export
from storage.export import parse_time, write_parquet
from storage.footprints import bounds, geometry, outline, tile_corners, wkt
from storage.index import read_index
from storage.schema import FOOTPRINT_COORDS, SchemaError
from storage.store import open_version
from tests.storage.tiles import build, make_tiles

RNG = np.random.default_rng(0)


def dated(scene_id, **changes):
    tiles = make_tiles(scene_id, **changes)
    return tiles.assign_attrs(acquired="2003-05-06T10:13:51Z")


def square(lon, lat):
    """Return columns of one tile of 2 x 2 km at a place, its rows running east."""
    vectors = {"right_east": 0.0, "right_north": -1000.0, "down_east": -1000.0, "down_north": 0.0}
    return {name: np.array([v], "f4") for name, v in vectors.items()} | {
        "lon": np.array([lon]),
        "lat": np.array([lat]),
    }


def test_exported_tiles_are_those_of_the_index_by_scene(repo, location, tmp_path):
    build(repo, dated("s2"), dated("s3", count=0))
    build(repo, dated("s1", sensor="ahsi"))
    paths = write_parquet(location, tmp_path / "out")
    found = pq.read_table(paths["index.parquet"]).to_pylist()
    expected = read_index(open_version(location)).to_pylist()
    assert [row["scene_id"] for row in found] == ["s1"] * 5 + ["s2"] * 5
    key = "tile_id"
    assert repr(sorted(found, key=lambda r: r[key])) == repr(sorted(expected, key=lambda r: r[key]))
    metadata = pq.read_schema(paths["index.parquet"]).metadata
    assert (metadata[b"version"], metadata[b"dataset"]) == (b"v2", b"demo")
    assert not list((tmp_path / "out").glob("*.tmp"))


def forget_outlines(monkeypatch):
    """Let versions read as those of a store that was made before tiles had outlines."""

    def read(group):
        table = read_index(group)
        return table.drop_columns([name for name in FOOTPRINT_COORDS if name in table.column_names])

    monkeypatch.setattr(export, "read_index", read)


def test_exported_scenes_have_counts_places_and_sources(repo, location, tmp_path, monkeypatch):
    forget_outlines(monkeypatch)
    build(repo, dated("s2"), dated("s3", count=0))
    write_parquet(location, tmp_path / "out")
    table = duckdb.from_parquet(str(tmp_path / "out/scenes.parquet"))
    table = table.project("*, rejected['nodata'] as nodata")
    full, empty = table.to_arrow_table().to_pylist()
    assert (full["tiles_in"], full["tiles_kept"], full["nodata"]) == (7, 5, 2)
    assert full["train"] + full["val"] + full["test"] == 5
    assert full["view_zenith"] is None
    assert full["acquired"].isoformat().startswith("2003-05-06T")
    assert full["sources"] == [{"name": "a.zip", "bytes": 3, "sha256": "00"}]
    # Without outlines of tiles: the hull of the known centres, three of them on one line.
    assert (full["west"], full["east"]) == (13.0, 13.04)
    assert full["footprint_of"] == "centres"
    assert full["footprint"].startswith("LINESTRING (13.000000 52.000000")
    assert (empty["tiles_kept"], empty["footprint"], empty["west"]) == (0, None, None)


def test_an_older_version_is_exported_as_it_was(repo, location, tmp_path):
    build(repo, dated("s1"))
    build(repo, dated("s2"))
    paths = write_parquet(location, tmp_path / "out", "v1")
    assert set(pq.read_table(paths["index.parquet"])["scene_id"].to_pylist()) == {"s1"}


def test_refuses_a_scene_without_a_time():
    with pytest.raises(SchemaError, match="s1: acquired must be ISO 8601"):
        parse_time("s1", "yesterday")


def test_corners_of_a_tile_are_its_centre_and_half_sides():
    corners = tile_corners(square(10.0, 60.0))[0]
    # A degree at 60 N is 111.412 km of latitude and 55.800 km of longitude (WGS84).
    assert np.ptp(corners[:, 1]) == pytest.approx(2 / 111.412, rel=1e-4)
    assert np.ptp(corners[:, 0]) == pytest.approx(2 / 55.800, rel=1e-4)
    assert corners.mean(axis=0) == pytest.approx([10, 60])


def test_corners_are_unknown_without_vectors():
    tile = square(10.0, 60.0)
    assert np.isnan(tile_corners({name: tile[name] for name in ("lon", "lat")})).all()
    assert np.isnan(tile_corners(tile | {"down_north": np.array([np.nan])})[:, :, 1]).all()


@pytest.mark.parametrize(
    "shape",
    [
        lambda rng: rng.normal(size=(200, 2)) * [0.1, 0.05],
        lambda rng: rng.random((500, 2)),
        lambda rng: np.stack(np.meshgrid(np.arange(5), np.arange(40)), -1).reshape(-1, 2) * 0.02,
        lambda rng: rng.random((3, 2)),
    ],
    ids=["cloud", "box", "grid", "triangle"],
)
def test_outline_encloses_all_points_and_turns_left(shape):
    turn = RNG.normal(size=(2, 2))
    points = shape(RNG) @ turn + [7, 45]
    ring = outline(points)
    edges = np.roll(ring, -1, axis=0) - ring
    away = points[:, None] - ring
    cross = edges[:, 0] * away[..., 1] - edges[:, 1] * away[..., 0]
    assert (cross >= -1e-11).all()
    assert {tuple(corner) for corner in ring.round(9)} <= {tuple(p) for p in points.round(9)}


def test_footprint_over_the_date_line_is_cut_there():
    points = np.array([[179.9, 10], [-179.8, 10], [-179.8, 10.2], [179.9, 10.2]])
    ring = outline(points)
    shape = geometry(ring)
    assert shape["type"] == "MultiPolygon"
    spans = sorted(
        (min(x for x, _ in part[0]), max(x for x, _ in part[0])) for part in shape["coordinates"]
    )
    assert spans == [(-180.0, -179.8), (179.9, 180.0)]
    assert bounds(ring) == (179.9, 10.0, -179.8, 10.2)


def test_geometry_of_few_points():
    assert geometry(outline(np.full((3, 2), np.nan))) is None
    assert wkt(geometry(outline(np.array([[1.0, 2.0]])))) == "POINT (1.000000 2.000000)"
    line = geometry(outline(np.array([[1.0, 2.0], [3.0, 4.0], [2.0, 3.0]])))
    assert line == {"type": "LineString", "coordinates": [[1.0, 2.0], [3.0, 4.0]]}
    ring = outline(np.array([[0.0, 0.0], [1, 0], [1, 1], [0, 1]]))
    assert wkt(geometry(ring)).startswith("POLYGON ((0.000000 0.000000, 1.000000 0.000000, ")
