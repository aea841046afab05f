import shutil
import zipfile

import dask
import numpy as np
import pytest

from pipeline.inspect import inspect_scene
from pipeline.readers import find_scenes, open_scene
from pipeline.readers.product import open_product
from pipeline.readers.raster import raster_stack
from pipeline.sensors import SENSORS
from pipeline.steps.radiance import radiance
from pipeline.sun import sun_zenith
from storage.schema import SceneError
from tests.pipeline import raw_products as raw
from tests.pipeline.test_geolocation import written_out

ZY1 = "ZY1E_AHSI_E108.96_N34.68_20200203_002068_L1A0000083728"
NAMES = {
    "GF-5": "GF5_AHSI_E112.73_N29.83_20190122_003766_L10000036541",
    "GF-5A": "GF5A_AHSI_E89.3_N38.7_20240126_006000_L10000300000",
    "GF-5B": raw.AHSI_NAME,
    "ZY1-02D": ZY1,
    "ZY1-02E": "ZY1F_AHSI_W111.72_N33.06_20221026_004370_L1A0000265656",
}


def never_compute(*args, **kwargs):
    raise AssertionError("computed a dask graph while building it")


def dn_of(bands, rows=5, cols=6, *, seed=1):
    return np.random.default_rng(seed).integers(1, 4000, (bands, rows, cols)).astype("uint16")


def write(folder, platform="GF-5B", *, rows=5, cols=6, **options):
    counts = (76, 90) if platform.startswith("ZY1") else (150, 180)
    dn = dn_of(sum(counts), rows, cols)
    return dn, raw.write_ahsi(folder, dn, name=NAMES[platform], counts=counts, **options)


def rejected(path, match):
    with pytest.raises(SceneError, match=match) as caught:
        open_scene(path)
    return caught.value


@pytest.mark.parametrize("platform", NAMES)
@pytest.mark.parametrize("ext", ["tif", "TIFF", "GeoTIFF"])
def test_every_satellite_and_ending_is_read(platform, ext, tmp_path):
    dn, folder = write(tmp_path / "p", platform, ext=ext)
    with dask.config.set(scheduler=never_compute):
        scene = open_scene(folder)
    assert scene.attrs["platform"] == platform
    assert scene.attrs["sensor"] == ("zy1_ahsi" if platform.startswith("ZY1") else "ahsi")
    assert scene.detector.values.tolist() == list(SENSORS[scene.attrs["sensor"]].detector)
    np.testing.assert_array_equal(scene.band, 1 + np.arange(len(dn)))
    np.testing.assert_array_equal(scene.dn.values, dn)
    assert find_scenes(tmp_path) == [folder]


@pytest.mark.parametrize("platform", ["GF-5", "ZY1-02D"])
@pytest.mark.parametrize("swapped", [True, False])
@pytest.mark.parametrize("separator", [",", "\t", " ", "  ", ", "])
@pytest.mark.parametrize("columns", [1, 2])
def test_sidecars_of_any_spelling_are_read(platform, swapped, separator, columns, tmp_path):
    options = {"swapped": swapped, "separator": separator, "columns": columns}
    _, folder = write(tmp_path / "p", platform, **options)
    scene = open_scene(folder)
    first = 150 if platform == "GF-5" else 76
    np.testing.assert_allclose(scene.gain[[0, first]], 0.09)
    np.testing.assert_allclose(scene.offset, 0.5 if columns == 2 else 0)
    np.testing.assert_allclose(scene.wavelength[[0, first]], [387, 1009])
    step = {"GF-5": 4.3, "ZY1-02D": 8.6}[platform]
    np.testing.assert_allclose(scene.fwhm[0], step + (0.1 if columns == 2 else 0))
    assert scene.attrs["wavelength_source"] == "product"


def test_names_in_capitals_and_small_letters_in_folders_are_read(tmp_path):
    dn, folder = write(tmp_path / "p")
    nested = tmp_path / "q" / "data" / "calibration"
    nested.mkdir(parents=True)
    for file in folder.iterdir():
        place = nested if file.suffix == ".raw" else nested.parent
        file.rename(place / (file.name.upper() if file.suffix == ".rpb" else file.name.lower()))
    scene = open_scene(tmp_path / "q")
    np.testing.assert_array_equal(scene.dn.values, dn)
    assert scene.attrs["platform"] == "GF-5B"


def test_gains_that_are_not_positive_are_flagged_and_never_used(tmp_path):
    _, folder = write(tmp_path / "p")
    scene = open_scene(folder)
    assert scene.attrs["bands_without_gain"] == [193, 194, 195]
    with np.errstate(all="raise"):
        values = radiance(scene).radiance.compute()
    assert np.isnan(values[192:195]).all()
    assert np.isfinite(values.values[np.r_[:192, 195:330]]).all()


@pytest.mark.parametrize("origin", [(0, 0), (2, 1), (-3, 2), (1, -3)])
@pytest.mark.parametrize("size", [(5, 6), (9, 4), (4, 12)])
def test_swir_of_another_size_and_offset_comes_to_vnirs_grid(origin, size, tmp_path):
    swir = dn_of(180, *size, seed=2)
    dn, folder = write(tmp_path / "p", swir=swir, origin=origin)
    with dask.config.set(scheduler=never_compute):
        scene = open_scene(folder)
    expected = np.zeros((180, 5, 6), "uint16")
    for row in range(size[0]):
        for col in range(size[1]):
            y, x = row + origin[0], col + origin[1]
            if 0 <= y < 5 and 0 <= x < 6:
                expected[:, y, x] = swir[:, row, col]
    assert scene.dn.dtype == "uint16"
    np.testing.assert_array_equal(scene.dn[:150].values, dn[:150])
    np.testing.assert_array_equal(scene.dn[150:].values, expected)
    assert scene.attrs["swir_shift"] == [-origin[0], -origin[1]]
    vacated = scene.vacated if "vacated" in scene else np.zeros((330, 5, 6), bool)
    np.testing.assert_array_equal(vacated[150:], expected == 0)
    assert not vacated[:150].any()
    assert scene.attrs["swir_shift_residual"] < 0.01


@pytest.mark.parametrize(("origin", "shift"), [((0.4, -0.45), [0, 0]), ((0.6, -1.3), [-1, 1])])
def test_swir_moves_by_whole_pixels_and_the_rest_is_told(origin, shift, tmp_path):
    _, folder = write(tmp_path / "p", origin=origin)
    attrs = open_scene(folder).attrs
    assert attrs["swir_shift"] == shift
    rest = max(abs(origin[0] + shift[0]), abs(origin[1] + shift[1]))
    assert attrs["swir_shift_residual"] == pytest.approx(rest, abs=0.005)


def test_chunks_stay_multiples_of_64_rows_after_a_shift(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.readers.raster.chunk_rows", lambda *_, **__: 64)
    dn, folder = write(tmp_path / "p", rows=200, cols=3, origin=(-7, 1))
    scene = open_scene(folder)
    assert scene.dn.chunks[1:] == ((64, 64, 64, 8), (3,))
    np.testing.assert_array_equal(scene.dn[150:, :193, 1:], dn[150:, 7:, :2])
    assert not scene.dn[150:, 193:].any()
    assert scene.vacated.chunks[1:] == scene.dn.chunks[1:]
    assert not scene.dn[150:, :, 0].any()


def test_a_distortion_between_the_rpcs_is_told(tmp_path):
    _, folder = write(tmp_path / "p", rows=40, cols=40)
    rpb = folder / f"{raw.AHSI_NAME}_SW.rpb"
    # 10 % coarser along x: up to 2 columns at the edges, 19.5 from the middle
    rpb.write_text(rpb.read_text().replace("longScale = 0.008", "longScale = 0.0088"))
    scene = open_scene(folder)
    assert scene.attrs["swir_shift"] == [0, 0]
    assert scene.attrs["swir_shift_residual"] == pytest.approx(19.5 * (1 - 1 / 1.1), abs=0.01)
    problems = "; ".join(inspect_scene(folder)["problems"])
    assert "SWIR lies up to 1.773 pixels off VNIR" in problems


def test_rejects_detectors_that_see_different_ground(tmp_path):
    _, folder = write(tmp_path / "p", swir=dn_of(180, 9, 4), origin=(1, -4))
    rejected(folder, "RPC of VN and SW that overlap.*got SW -1 rows and 4 columns off")


@pytest.mark.parametrize("change", ["latOffset = 62.4", "lineScale = 1e300", "latScale = 0"])
def test_rejects_rpcs_that_do_not_meet(change, tmp_path):
    _, folder = write(tmp_path / "p")
    rpb = folder / f"{raw.AHSI_NAME}_SW.rpb"
    key = change.partition(" ")[0]
    lines = [f"\t{change};" if key in line else line for line in rpb.read_text().splitlines()]
    rpb.write_text("\n".join(lines))
    assert rejected(folder, "RPC of VN and SW that overlap").where == str(rpb)


@pytest.mark.parametrize(
    ("start", "zone", "acquired"),
    [("2023-07-31 03:02:11.250000", "UTC", "2023-07-31T03:02:11.250000Z"),
     ("2023-07-31 11:02:11.250000", "UTC+8 assumed from SolarZenith",
      "2023-07-31T03:02:11.250000Z"),
     ("2023-07-31 15:02:11", "undecided", "2023-07-31T15:02:11Z"),
     ("2023-07-31T11:02:11+08:00", "stated", "2023-07-31T03:02:11Z")],
)  # fmt: skip
def test_time_zone_is_the_one_in_which_the_sun_fits(start, zone, acquired, tmp_path):
    # China, 11:02 in Beijing: zenith angle by the almanac formulas, tested by themselves
    from datetime import datetime

    zenith = sun_zenith(datetime.fromisoformat("2023-07-31T03:02:14+00:00"), 113.2, 36.3)
    assert zenith < 30
    _, folder = write(tmp_path / "p", StartTime=start, SolarZenith=f"{zenith:.4f}")
    for rpb in folder.glob("*.rpb"):
        text = rpb.read_text().replace("latOffset = 52.4", "latOffset = 36.3")
        rpb.write_text(text.replace("longOffset = 13.0", "longOffset = 113.2"))
    attrs = open_scene(folder).attrs
    assert (attrs["time_zone"], attrs["acquired"]) == (zone, acquired)
    told = any("time zone" in problem for problem in inspect_scene(folder)["problems"])
    assert told == (zone == "undecided")


def test_without_solar_zenith_the_time_zone_is_undecided(tmp_path):
    _, folder = write(tmp_path / "p", SolarZenith=None)
    attrs = open_scene(folder).attrs
    assert attrs["time_zone"] == "undecided"
    assert np.isnan(attrs["sun_elevation"])


def test_zy1_calls_the_level_otherwise_and_may_lack_its_wavelengths(tmp_path):
    _, folder = write(tmp_path / "p", "ZY1-02D", Level="LEVEL1A", POrbitID=2068)
    for file in folder.glob("*Spectralresponse*"):
        file.unlink()
    scene = open_scene(folder)
    assert (scene.attrs["level"], scene.attrs["wavelength_source"]) == ("L1", "table zy1_ahsi")
    np.testing.assert_array_equal(scene.wavelength, SENSORS["zy1_ahsi"].wavelength)
    _, other = write(tmp_path / "q", "GF-5B")
    next(other.glob("*Spectralresponse_SWIR*")).unlink()
    rejected(other, "Spectralresponse_SWIR")


def test_scale_factor_is_told_as_it_is(tmp_path):
    assert open_scene(write(tmp_path / "a", ScaleFactor="0.01")[1]).attrs["scale_factor"] == 0.01
    assert open_scene(write(tmp_path / "b", ScaleFactor=None)[1]).attrs["scale_factor"] == 1


def test_checks_and_other_xml_beside_the_products_are_ignored(tmp_path):
    _, folder = write(tmp_path / "p")
    (folder / f"{raw.AHSI_NAME}_CHECK.XML").write_text("<Check/>")
    (folder / f"{raw.AHSI_NAME}_VN.tif.aux.xml").write_text("<PAMDataset/>")
    (folder / f"{raw.AHSI_NAME}_order.xml").write_text("<Order/>")
    assert open_scene(folder).attrs["sun_elevation"] == 30
    xml = folder / f"{raw.AHSI_NAME}.xml"
    text = xml.read_text().replace("<ProductMetaData>", '<ProductMetaData xmlns="urn:x">')
    xml.write_text(text)
    assert open_scene(folder).attrs["sun_elevation"] == 30


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"SensorID": "VIMS"}, "SensorID AHSI.*got VIMS"),
        ({"ProductLevel": "LEVEL2A"}, "level 1.*LEVEL2A"),
        ({"Level": "2"}, "level 1.*level 2"),
        ({"SatelliteID": "GF5A"}, "one satellite.*got GF5B and GF5A"),
        ({"BandsCount": 166}, "BandsCount 150 or 180 or 330, as the rasters have, got 166"),
        ({"LinesInPixels": 7}, "LinesInPixels 5"),
        ({"StartTime": "yesterday"}, "StartTime like.*'yesterday'"),
        ({"StartTime": "0001-01-01 00:00:00"}, "from 2018 on"),
        ({"StartTime": None}, "a value of StartTime"),
        ({"SolarZenith": 200}, "SolarZenith in 0..180"),
        ({"ScaleFactor": "one"}, "a number as ScaleFactor"),
    ],
)
def test_rejects_an_xml_that_does_not_fit(changes, match, tmp_path):
    rejected(write(tmp_path / "p", **changes)[1], match)


def test_rejects_other_numbers_of_bands_and_mixed_products(tmp_path):
    _, folder = write(tmp_path / "a")
    zy1 = write(tmp_path / "b", "ZY1-02D")[1]
    shutil.copy(zy1 / f"{ZY1}_SW.tif", folder / f"{raw.AHSI_NAME}_SW.tif")
    rejected(folder, r"150 \+ 180 bands.*76 \+ 90.*got 150 \+ 90")
    dn = dn_of(166)
    named = raw.write_ahsi(tmp_path / "c", dn, counts=(76, 90))
    rejected(named, "one satellite.*ZY1... for its number of bands, got GF5B")
    signed = write(tmp_path / "d")[1]
    raw.write_tif(signed / f"{raw.AHSI_NAME}_SW.tif", np.ones((180, 5, 6), "int16"))
    rejected(signed, "both uint16 or both int16.*int16 and uint16")
    stranger = raw.write_ahsi(tmp_path / "e", dn_of(330), name="X_AHSI_E1.0_N1.0")
    rejected(stranger, "one satellite of .*GF-5.*ZY1-02E")


@pytest.mark.skipif(not raw.SHARED.is_dir(), reason=f"no real products at {raw.SHARED}")
def test_the_real_product_has_one_grid_and_no_zone_that_fits():
    scene = open_scene(next(raw.SHARED.glob("GF5B_AHSI*")))
    assert scene.attrs["swir_shift"] == [0, 0]
    assert scene.attrs["swir_shift_residual"] < 0.01
    # Its sun is July's, its date October's: neither UTC nor UTC+8 explains SolarZenith.
    assert scene.attrs["time_zone"] == "undecided"
    assert scene.attrs["bands_without_gain"]
    line, sample = written_out(scene.attrs["rpc"], 13.02, 52.38, 40)
    assert (line, sample) == (96, 128)


def test_a_changed_bit_in_a_stored_zip_is_found_with_the_first_rows(tmp_path):
    folder = raw.write_ahsi(tmp_path / "p", raw.ahsi_dn(200, 70))
    path = tmp_path / f"{raw.AHSI_NAME}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.name)
        info = next(info for info in archive.infolist() if "_VN.tif" in info.filename)
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + info.file_size - 100] ^= 1
    path.write_bytes(content)
    product = open_product(path)
    (raster,) = product.find(r".*_VN\.tif")
    stack = raster_stack(product, [raster], (150, 200, 70), "uint16")
    with pytest.raises(SceneError, match=r"_VN\.tif.*checksum"):
        stack[0:3, 0:5, 0:70]
