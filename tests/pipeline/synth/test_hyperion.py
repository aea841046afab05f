import datetime as dt
import re

import numpy as np
import pytest
from rasterio.warp import transform

ENTITY_ID = r"EO1H\d{3}\d{3}\d{4}\d{3}[01]{3}[A-Za-z]\w"
UNCALIBRATED = [*range(1, 8), *range(58, 77), *range(225, 243)]


@pytest.fixture(params=["L1T", "L1GST"])
def product(request, scenes, l1t, l1gst):
    scene = scenes[f"hyperion-{request.param.lower()}"]
    return request.param, scene, {"L1T": l1t, "L1GST": l1gst}[request.param]


def odl(text):
    """Parse ODL into {group: {key: value}}, checking that the groups nest."""
    open_groups, found = [], {}
    lines = text.splitlines()
    assert lines[0] == "GROUP = L1_METADATA_FILE"
    assert lines[-1] == "END"
    for line in lines[:-1]:
        key, value = (part.strip() for part in line.split("=", 1))
        if key == "GROUP":
            open_groups.append(value)
        elif key == "END_GROUP":
            assert open_groups.pop() == value
        else:
            found.setdefault(open_groups[-1], {})[key] = value.strip('"')
    assert not open_groups
    return found


def test_archive_names_are_those_of_the_archive(scenes):
    one, two = scenes["hyperion-l1t"], scenes["hyperion-l1gst"]
    assert re.fullmatch(ENTITY_ID + "_1T.ZIP", one.file.name)
    assert re.fullmatch(ENTITY_ID + "_1GST.tgz", two.file.name)
    assert one.product != two.product


def test_members_are_242_tiffs_and_one_mtl(product):
    level, scene, files = product
    folder = f"{scene.product}/" if level == "L1T" else ""
    expected = [f"{folder}{scene.product}_B{band:03d}_{level}.TIF" for band in range(1, 243)]
    assert files.tiffs == expected
    assert files.mtl_name == f"{folder}{scene.product}_MTL_{level}.TXT"
    assert len(files.names) == 243


def test_rasters_are_int16_on_one_30_m_utm_grid(product):
    _, _, files = product
    first = files.profiles[0]
    assert (first["dtype"], first["count"], first["nodata"]) == ("int16", 1, None)
    assert first["crs"].to_epsg() == 32630
    assert (first["transform"].a, first["transform"].e) == (30, -30)
    assert first["transform"].c % 30 == first["transform"].f % 30 == 0
    assert all(profile == first for profile in files.profiles)


def test_uncalibrated_bands_are_zero_and_the_others_are_not(product):
    _, _, files = product
    empty = [band for band in range(1, 243) if not files.dn[band - 1].any()]
    assert empty == UNCALIBRATED


def test_border_is_zero_and_the_footprint_is_tilted(product):
    _, scene, files = product
    assert not files.dn[:, scene.labels == 0].any()
    bright = files.dn[28]  # 640 nm, far above noise wherever there is ground
    assert np.array_equal(bright != 0, scene.labels > 0)
    assert 0.6 < (scene.labels > 0).mean() < 0.8
    rows, columns = np.nonzero(bright)
    # The left edge runs down to the left, as a pass towards the south does.
    assert columns[rows < 20].min() > columns[rows > 320].min() + 30


def test_mtl_has_the_keys_that_readers_use(product):
    level, scene, files = product
    mtl = odl(files.mtl)
    meta = mtl["PRODUCT_METADATA"]
    assert (meta["SPACECRAFT_ID"], meta["SENSOR_ID"]) == ("EO1", "HYPERION")
    assert meta["PRODUCT_TYPE"] == level
    assert (meta["PRODUCT_LINES"], meta["PRODUCT_SAMPLES"]) == ("384", "320")
    for band in range(1, 243):
        assert files.tiffs[band - 1].endswith(meta[f"BAND{band}_FILE_NAME"])
    assert mtl["RADIANCE_SCALING"] == {"SCALING_FACTOR_VNIR": "40", "SCALING_FACTOR_SWIR": "80"}
    assert mtl["PROJECTION_PARAMETERS"]["MAP_PROJECTION"] == "UTM"
    assert mtl["UTM_PARAMETERS"]["ZONE_NUMBER"] == "30"
    sun = mtl["PRODUCT_PARAMETERS"]
    assert float(sun["SUN_ELEVATION"]) == pytest.approx(scene.sun_elevation)
    assert -180 <= float(sun["SUN_AZIMUTH"]) <= 180
    assert float(sun["SUN_AZIMUTH"]) % 360 == pytest.approx(scene.sun_azimuth)


def test_dates_of_name_and_mtl_agree(product):
    _, scene, files = product
    meta = odl(files.mtl)["PRODUCT_METADATA"]
    start = dt.datetime.strptime(meta["START_TIME"], "%Y %j %H:%M:%S").replace(tzinfo=dt.UTC)
    assert start == dt.datetime.fromisoformat(scene.acquired)
    assert meta["ACQUISITION_DATE"] == f"{start:%Y-%m-%d}"
    assert scene.product[10:17] == f"{start:%Y%j}"
    created = odl(files.mtl)["METADATA_FILE_INFO"]["PRODUCT_CREATION_TIME"]
    assert dt.datetime.fromisoformat(created) > start


def test_corners_of_the_mtl_are_those_of_the_grid(product):
    _, _, files = product
    meta, grid = odl(files.mtl)["PRODUCT_METADATA"], files.profiles[0]["transform"]
    for corner, row, column in (("UL", 0, 0), ("UR", 0, 319), ("LL", 383, 0), ("LR", 383, 319)):
        key = f"PRODUCT_{corner}_CORNER_"
        x, y = grid.c + 30 * (column + 0.5), grid.f - 30 * (row + 0.5)
        assert (float(meta[key + "MAPX"]), float(meta[key + "MAPY"])) == (x, y)
        (east,), (north,) = transform(
            "EPSG:4326", "EPSG:32630", [float(meta[key + "LON"])], [float(meta[key + "LAT"])]
        )
        assert (east, north) == pytest.approx((x, y), abs=0.2)
