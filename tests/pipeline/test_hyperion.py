"""Hyperion as it is delivered: names, projections, missing bands, both layouts of L1R."""

from hashlib import sha256

import numpy as np
import pytest

from pipeline.inspect import inspect_scene
from pipeline.readers import find_scenes, open_scene
from pipeline.steps.bands import bands
from storage.schema import SceneError
from tests.pipeline import raw_products as raw

DN = raw.hyperion_dn(5, 6)
CALIBRATED = [band for band in range(1, 243) if band not in raw.UNCALIBRATED]
SOUTH = {"crs": "EPSG:32733", "corner": (362175, 5809965)}
POLAR = {"crs": "EPSG:3031", "corner": (500000, 500000)}
# The corners of 5 x 6 pixels of 30 m from 362175 E, 5809965 N in UTM 33 N, by PROJ's `cs2cs`
CORNERS = {
    f"PRODUCT_{corner}_CORNER_{axis}": value
    for corner in ("UL", "UR", "LL", "LR")
    for axis, value in (("LAT", 52.4232), ("LON", 12.9738))
}


def rejected(path, match):
    with pytest.raises(SceneError, match=match) as caught:
        open_scene(path)
    return caught.value


def test_reads_a_product_without_its_uncalibrated_bands(tmp_path):
    scene = open_scene(raw.write_l1t(tmp_path / "p", DN, bands=CALIBRATED))
    np.testing.assert_array_equal(scene.band, CALIBRATED)
    np.testing.assert_array_equal(scene.dn, DN[np.array(CALIBRATED) - 1])
    np.testing.assert_allclose(scene.gain[[0, -1]], [1 / 40, 1 / 80])
    np.testing.assert_allclose(scene.wavelength[[0, 49, 50]], [426.82, 925.41, 912.45])
    assert scene.detector.values.tolist() == ["VNIR"] * 50 + ["SWIR"] * 148
    assert scene.attrs["notes"] == ["44 uncalibrated bands are not in the product"]
    np.testing.assert_array_equal(bands(scene, name="hyperglobal").dn[0], DN[7])
    assert "44 uncalibrated" in "; ".join(inspect_scene(tmp_path / "p")["problems"])


def test_rejects_a_product_without_a_calibrated_band(tmp_path):
    kept = [band for band in range(1, 243) if band not in (100, 7)]
    rejected(raw.write_l1t(tmp_path / "p", DN, bands=kept), r"got 240 \(missing B100\)")


@pytest.mark.parametrize(
    ("level", "suffix", "entity", "scene_id"),
    [
        ("L1T", "L1T", raw.ENTITY, "EO1H1930242013205110KF_1T"),
        ("l1gst", "tiff", raw.ENTITY.lower(), "EO1H1930242013205110KF_1GST"),
        ("L1T", "TIF", "EO1H1680612008182110Kt", "EO1H1680612008182110Kt_1T"),
        ("L1T", "TIF", "EO1H0230322012194110P0_SGS_01", "EO1H0230322012194110P0_1T"),
        ("L1T", "tif", "EO1H0230322012194110K4_SG1_01", "EO1H0230322012194110K4_1T"),
    ],
)
def test_reads_other_spellings(level, suffix, entity, scene_id, tmp_path):
    folder = raw.write_l1t(tmp_path / "in" / "p", DN, level=level, suffix=suffix, entity=entity)
    assert find_scenes(tmp_path / "in") == [folder]
    scene = open_scene(folder)
    assert (scene.attrs["scene_id"], scene.attrs["level"]) == (scene_id, level.upper())
    np.testing.assert_array_equal(scene.dn, DN)


def test_reads_bands_named_by_level_alone_and_an_mtl_named_tif(tmp_path):
    folder = raw.write_l1t(tmp_path / "p", DN)
    for file in folder.glob("*_B*_L1T.TIF"):
        file.rename(file.with_name(file.name.replace("_L1T.TIF", ".L1T")))
    (folder / f"{raw.ENTITY}_MTL_L1T.TXT").rename(folder / f"{raw.ENTITY}_MTL_L1T.TIF")
    np.testing.assert_array_equal(open_scene(folder).dn, DN)


def test_refuses_l1gst_in_hdf(tmp_path):
    (tmp_path / f"{raw.ENTITY}_B001.L1GST").write_bytes(b"\x0e\x03\x13\x01")
    (tmp_path / f"{raw.ENTITY}_MTL.L1GST").write_text(raw.mtl_text())
    rejected(tmp_path, "L1Gst in HDF; order the scene as GeoTIFF")


@pytest.mark.parametrize(
    ("grid", "mtl"),
    [
        ({}, {"MAP_PROJECTION": '"UTM"', "ZONE_NUMBER": 33}),
        (SOUTH, {"MAP_PROJECTION": '"UTM"', "ZONE_NUMBER": -33}),
        (POLAR, {"MAP_PROJECTION": "PS"}),
        (SOUTH, {"MAP_PROJECTION": '"UTM"'}),
    ],
)
def test_accepts_a_projection_that_is_the_mtls(grid, mtl, tmp_path):
    scene = open_scene(raw.write_l1t(tmp_path / "p", DN, **grid, **mtl))
    assert scene.attrs["crs"] == grid.get("crs", "EPSG:32633")
    assert scene.attrs["notes"] == []


@pytest.mark.parametrize(
    ("grid", "mtl", "match"),
    [
        ({}, {"ZONE_NUMBER": -33}, "UTM zone 33 north, got UTM zone 33 south, and no corners"),
        (SOUTH, {"ZONE_NUMBER": 33}, "zone 33 south, got UTM zone 33 north"),
        ({}, {"ZONE_NUMBER": 34} | CORNERS | {"PRODUCT_UL_CORNER_LON": 13.97}, "corners 68 km"),
        ({}, {"MAP_PROJECTION": "PS"}, "zone 33 north, got polar stereographic"),
        (POLAR, {"MAP_PROJECTION": "UTM", "ZONE_NUMBER": 33}, "polar stereographic, got UTM"),
        ({}, {"ZONE_NUMBER": 61}, "ZONE_NUMBER 1 to 60"),
        ({"crs": None}, {}, "a map projection and a grid, got none"),
    ],
)
def test_rejects_a_projection_that_is_not_the_mtls(grid, mtl, match, tmp_path):
    rejected(raw.write_l1t(tmp_path / "p", DN, **grid, **mtl), match)


def test_takes_the_geotiffs_projection_where_its_corners_are_the_mtls(tmp_path):
    folder = raw.write_l1t(tmp_path / "p", DN, MAP_PROJECTION="UTM", ZONE_NUMBER=-33, **CORNERS)
    scene = open_scene(folder)
    assert scene.attrs["crs"] == "EPSG:32633"
    assert "the MTL's projection is UTM zone 33 south" in scene.attrs["notes"][0]


@pytest.mark.parametrize("nm", [1.0, 1000.0])
@pytest.mark.parametrize("one_file", [False, True])
def test_reads_both_layouts_of_l1r_in_nanometres_and_micrometres(one_file, nm, tmp_path):
    flags = np.zeros(DN.shape, "u1")
    flags[99, 3, 2] = 4
    folder = raw.write_l1r(tmp_path / "p", DN, flags=flags, one_file=one_file, nm=nm)
    assert (folder / f"{raw.ENTITY}.AUX").exists() != one_file
    scene = open_scene(folder)
    np.testing.assert_array_equal(scene.dn, DN)
    np.testing.assert_array_equal(scene.flags, flags)
    np.testing.assert_allclose(scene.wavelength, 400 + 8 * np.arange(242), atol=1e-3)
    np.testing.assert_allclose(scene.fwhm, 11, rtol=1e-6)


def test_rejects_l1r_without_auxiliary_tables(tmp_path):
    folder = raw.write_l1r(tmp_path / "p", DN)
    (folder / f"{raw.ENTITY}.AUX").unlink()
    rejected(folder, "one .AUX file, or 'Spectral Center Wavelengths' in the L1R file")


@pytest.mark.parametrize(("suffix", "match"), [("L1", "unsigned"), ("L1_A", "otherwise")])
def test_rejects_older_levels(suffix, match, tmp_path):
    folder = raw.write_l1r(tmp_path / "p", DN)
    (folder / f"{raw.ENTITY}.L1R").rename(folder / f"{raw.ENTITY}.{suffix}")
    rejected(folder, f"{match}.*order the scene from USGS as L1R or L1T")


DESCRIBED = {
    "Entity ID": f"{raw.ENTITY}_SGS_01", "Sun Elevation": "41.25", "Sun Azimuth": "-150.5",
    "Look Angle": "-2.1345", "Scene Start Time": "2013:205:09:41:20.250",
}  # fmt: skip


def xml_of_tags(values):
    tags = {key.replace(" ", "_"): value for key, value in values.items()}
    body = "".join(f"<{key}>{value}</{key}>" for key, value in tags.items())
    return f"<scene><row>{body}</row></scene>"


def xml_of_fields(values):
    fields = "".join(
        f'<f:field name="{key}"><f:value>{value}</f:value></f:field>'
        for key, value in values.items()
    )
    return f'<f:scene xmlns:f="http://example.org/"><f:fields>{fields}</f:fields></f:scene>'


def csv_table(values):
    other = ["EO1H0000002013205110KF", "1", "2", "3", "2000:001:00:00:00.000"]
    return "\n".join([",".join(values), ",".join(other), ",".join(values.values())]) + "\n"


@pytest.mark.parametrize("write", [xml_of_tags, xml_of_fields, csv_table])
@pytest.mark.parametrize("beside", [True, False])
def test_l1r_takes_the_sun_from_earthexplorers_description(write, beside, tmp_path):
    folder = raw.write_l1r(tmp_path / "in" / "p", DN, START_TIME=None)
    suffix = "csv" if write is csv_table else "xml"
    file = (tmp_path / "in" if beside else folder) / f"EO1_HYP_PUB_{raw.ENTITY}_SGS_01.{suffix}"
    file.write_text(write(DESCRIBED))
    archive = raw.tarred(folder, tmp_path / "in" / f"{raw.ENTITY}_1R.tgz")
    for product in (folder, archive):
        attrs = open_scene(product).attrs
        assert (attrs["sun_elevation"], attrs["sun_azimuth"]) == (41.25, 209.5)
        assert attrs["acquired"] == "2013-07-24T09:41:20.250000Z"
        assert 0 < attrs["view_zenith"] < 3
        assert f"from {file.name}" in attrs["notes"][0]
        sources = {source["name"]: source["sha256"] for source in attrs["sources"]}
        if beside or product is folder:
            assert sources[file.name] == sha256(file.read_bytes()).hexdigest()


def test_l1r_prefers_its_own_met_and_ignores_other_scenes(tmp_path):
    folder = raw.write_l1r(tmp_path / "in" / "p", DN, SUN_ELEVATION=30)
    beside = tmp_path / "in" / "eo1_hyp_pub_table.csv"
    beside.write_text(csv_table(DESCRIBED))
    assert open_scene(folder).attrs["sun_elevation"] == 30
    beside.write_text(csv_table(DESCRIBED | {"Entity ID": "EO1H0000012013205110KF"}))
    assert np.isnan(open_scene(folder).attrs["sun_azimuth"])
    beside.write_text(csv_table(DESCRIBED | {"Sun Elevation": "nan"}))
    assert rejected(folder, "a number as SUN_ELEVATION").where == str(beside)


def test_l1r_without_any_time_has_the_day_of_its_entity_id(tmp_path):
    attrs = open_scene(raw.write_l1r(tmp_path / "p", DN, START_TIME=None)).attrs
    assert attrs["acquired"] == "2013-07-24T00:00:00Z"
    assert attrs["notes"] == ["no time of day: the date is the entity id's"]
