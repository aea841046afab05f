import json

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

from pipeline.land import is_land, load
from pipeline.split import SplitConfig, pinned, split_at
from tests.pipeline.land_masks import write_tif


def test_masks_of_all_kinds_say_the_same(tmp_path):
    """A rectangle of land, 10..11.5 deg east and 50..51 deg north."""
    ring = [[10, 50], [11.5, 50], [11.5, 51], [10, 51], [10, 50]]
    lake = [[10.2, 50.2], [10.2, 50.8], [10.9, 50.8], [10.9, 50.2], [10.2, 50.2]]
    feature = {"type": "Feature", "properties": {},
               "geometry": {"type": "MultiPolygon", "coordinates": [[ring, lake]]}}  # fmt: skip
    collection = {"type": "FeatureCollection", "features": [feature], "bbox": [8, 48, 14, 53]}
    (tmp_path / "land.geojson").write_text(json.dumps(collection))

    def land(lon, lat):
        def box(west, south, east, north):
            return (lon > west) & (lon < east) & (lat > south) & (lat < north)

        return box(10, 50, 11.5, 51) & ~box(10.2, 50.2, 10.9, 50.8)

    lon, lat = np.meshgrid(np.arange(8.0025, 14, 0.005), np.arange(52.9975, 48, -0.005))
    write_tif(tmp_path / "degrees.tif", land(lon, lat).astype("int16") * 7, (8, 48, 14, 53))
    # Longitudes from 0 to 360 with the mask's seam in the middle of the land.
    lon, lat = np.meshgrid(np.arange(10.755, 370.75, 0.01), np.arange(52.995, 48, -0.01))
    value = (land(lon, lat) | land(lon - 360, lat)).astype("uint8")
    write_tif(tmp_path / "seam.tif", value, (10.75, 48, 370.75, 53))
    for name, epsg in (("utm", 32632), ("polar", 3995), ("mercator", 3857)):
        x, y = transform("EPSG:4326", f"EPSG:{epsg}", [8, 8, 14, 14, 11], [48, 53, 48, 53, 53])
        bounds = min(x), min(y), max(x), max(y)
        x, y = np.meshgrid(np.linspace(bounds[0], bounds[2], 600), np.linspace(*bounds[:0:-2], 600))
        place = transform(f"EPSG:{epsg}", "EPSG:4326", x.ravel(), y.ravel())
        value = land(*(np.reshape(values, x.shape) for values in place)).astype("float32")
        write_tif(tmp_path / f"{name}.tif", value, bounds, f"EPSG:{epsg}")
    rng = np.random.default_rng(0)
    points = rng.uniform(9.5, 12, 5000), rng.uniform(49.5, 51.5, 5000)
    for path in sorted(tmp_path.iterdir()):
        found = load(path)
        got = is_land(found, *points)
        assert np.isfinite(got).all(), path
        assert (got == land(*points)).mean() > 0.98, path
        np.testing.assert_array_equal(is_land(found, points[0] + 360, points[1]), got)
        if path.name != "seam.tif":
            far = np.array([-169.0, 191.0, 60.0, 10.5]), np.array([50.5, 50.5, 50.5, -89.0])
            assert np.isnan(is_land(found, *far)).all(), path


@pytest.mark.parametrize("crs", ["ESRI:54009", "ESRI:54008", "EPSG:3031"])
def test_a_map_of_the_earth_with_corners_beyond_it(crs, tmp_path):
    """Mollweide, sinusoidal, and the Antarctic seen from below; land is south of 60 deg."""
    edge = 9e6 if crs != "EPSG:3031" else 4e6
    high = edge if crs == "EPSG:3031" else 9.1e6
    wide = edge if crs == "EPSG:3031" else 2.01e7
    x, y = np.meshgrid(np.linspace(-wide, wide, 400), np.linspace(high, -high, 300))
    value = (x**2 + y**2 < 3.33e6**2) if crs == "EPSG:3031" else y < -6.67e6
    if crs == "ESRI:54009":
        value = y < transform("EPSG:4326", crs, [0], [-60])[1][0]
    path = write_tif(tmp_path / "a.tif", value.astype("uint8"), (-wide, -high, wide, high), crs)
    lon = np.linspace(-175, 175, 200)
    for lat, land in ((-75, 1), (-50 if crs != "EPSG:3031" else -57, 0)):
        np.testing.assert_array_equal(is_land(load(path), lon, np.full(200, float(lat))), land)
    if crs == "EPSG:3031":
        assert np.isnan(is_land(load(path), lon, np.full(200, 80.0))).all()
    split_at(SplitConfig(land_mask=path), lon, lon / 2)


def test_nodata_says_nothing_unless_it_is_zero(tmp_path):
    value = np.array([[0, 1], [9, 2]], "uint8")
    nine = load(write_tif(tmp_path / "nine.tif", value, (0, 0, 2, 2), nodata=9))
    zero = load(write_tif(tmp_path / "zero.tif", value, (0, 0, 2, 2), nodata=0))
    lon, lat = np.array([0.5, 1.5, 0.5, 1.5]), np.array([1.5, 1.5, 0.5, 0.5])
    np.testing.assert_array_equal(is_land(nine, lon, lat), [0, 1, np.nan, 1])
    np.testing.assert_array_equal(is_land(zero, lon, lat), [0, 1, 1, 1])


def _geojson(**given):
    return json.dumps(given)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.tif", None, "found nothing at .*a.tif"),
        (".", None, "got a folder"),
        ("a.txt", "no mask", "expected a GeoTIFF .* got neither"),
        ("a.json", "{", "JSON that cannot be read"),
        ("a.json", '{"name": 1}', "JSON of type None"),
        ("a.json", _geojson(type="FeatureCollection", features=[]), "without a polygon"),
        ("a.json", _geojson(type="FeatureCollection"), "lacks something"),
        ("a.json", _geojson(type="LineString", coordinates=[]), "type LineString: give land as"),
        ("a.json", _geojson(type="Polygon", coordinates=[[[4e5, 5e6], [5e5, 6e6]]]), "lon, lat"),
        ("a.json", _geojson(type="Polygon", coordinates=[[7, 8]]), "lacks something"),
        ("a.json", _geojson(type="Polygon", coordinates=[],
                            crs={"properties": {"name": "EPSG:32632"}}), "in EPSG:32632"),
    ],
)  # fmt: skip
def test_refuses_what_is_no_mask(name, content, match, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        split_at(SplitConfig(land_mask=path), np.array([1.0]), np.array([2.0]))


@pytest.mark.parametrize(
    ("options", "match"),
    [({"crs": None}, "without a georeference"), ({"count": 3}, "3 bands"),
     ({"transform": None}, "without a georeference"), ({"dtype": "complex64"}, "complex64"),
     ({"driver": "PNG", "crs": None, "transform": None}, "neither")],
)  # fmt: skip
def test_refuses_rasters_that_are_no_mask(options, match, tmp_path):
    given = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "uint8"}
    given |= {"crs": CRS.from_epsg(4326), "transform": from_origin(0, 4, 1, 1), **options}
    path = tmp_path / "mask.tif"
    with rasterio.open(path, "w", **{k: v for k, v in given.items() if v is not None}) as file:
        file.write(np.ones((given["count"], 4, 4), given["dtype"]))
    with pytest.raises(ValueError, match=match):
        pinned(SplitConfig(land_mask=path))
