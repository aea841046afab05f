import gc
import os
import pickle
import shutil
import stat
import tarfile
import zipfile

import dask
import numpy as np
import pytest
from pyhdf.SD import SDC

from pipeline.readers import find_scenes, open_scene
from pipeline.readers.raster import chunk_rows
from storage.schema import SCENE_ATTRS, SceneError
from tests.pipeline import raw_products as raw


def never_compute(*args, **kwargs):
    raise AssertionError("computed a dask graph while building it")


@pytest.fixture(scope="module")
def l1t(tmp_path_factory):
    return raw.write_l1t(tmp_path_factory.mktemp("l1t") / "product")


@pytest.fixture(scope="module")
def l1r(tmp_path_factory):
    return raw.write_l1r(tmp_path_factory.mktemp("l1r") / "product")


@pytest.fixture(scope="module")
def ahsi(tmp_path_factory):
    return raw.write_ahsi(tmp_path_factory.mktemp("ahsi") / "product")


PACKINGS = {
    "folder": lambda folder, out: folder,
    "zip": lambda folder, out: raw.zipped(folder, out / f"{raw.ENTITY}_1T.ZIP"),
    "nested-zip": lambda folder, out: raw.zipped(folder, out / "EO1H1.zip", prefix="a/"),
    "tgz": lambda folder, out: raw.tarred(folder, out / "EO1H1.tgz", prefix="a/"),
    "tar.gz": lambda folder, out: raw.tarred(folder, out / "GF5B_AHSI_1.tar.gz"),
    "tar": lambda folder, out: raw.tarred(folder, out / "EO1H1.tar", mode="w"),
    "TAR.XZ": lambda folder, out: raw.tarred(folder, out / "GF5B_AHSI_1.TAR.XZ", mode="w:xz"),
    "txz": lambda folder, out: raw.tarred(folder, out / "EO1H1.txz", prefix="a/b/", mode="w:xz"),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("family", ["l1t", "l1r", "ahsi"])
def test_reads_the_same_dn_from_every_packing(family, packing, tmp_path, request):
    path = PACKINGS[packing](request.getfixturevalue(family), tmp_path)
    with dask.config.set(scheduler=never_compute):
        scene = open_scene(path)
    expected = raw.ahsi_dn() if family == "ahsi" else raw.hyperion_dn()
    assert scene.dn.dims == ("band", "y", "x")
    assert scene.dn.dtype == expected.dtype
    np.testing.assert_array_equal(scene.dn.values, expected)
    # A window of some bands is the same window of the whole.
    np.testing.assert_array_equal(
        scene.dn[140:160, 30:66, 5:9].values, expected[140:160, 30:66, 5:9]
    )
    assert set(SCENE_ATTRS) <= set(scene.attrs)
    if packing != "folder":
        assert os.listdir(tmp_path) == [path.name]  # nothing was written beside it


def test_l1t_has_the_metadata_of_its_mtl(l1t):
    scene = open_scene(l1t)
    assert scene.attrs["sensor"] == "hyperion"
    assert scene.attrs["scene_id"] == "EO1H1930242013205110KF_1T"
    assert scene.attrs["acquired"] == "2013-07-24T09:41:20Z"
    assert (scene.attrs["sun_elevation"], scene.attrs["sun_azimuth"]) == (30.0, 259.5)
    assert scene.attrs["crs"] == "EPSG:32633"
    assert scene.attrs["transform"] == [30.0, 0.0, 362175.0, 0.0, -30.0, 5809965.0]
    np.testing.assert_array_equal(scene.band, np.arange(1, 243))
    np.testing.assert_allclose(scene.gain[[0, 69, 70, 241]], [1 / 40, 1 / 40, 1 / 80, 1 / 80])
    np.testing.assert_array_equal(scene.offset, 0)
    assert scene.detector.values.tolist() == ["VNIR"] * 70 + ["SWIR"] * 172
    # USGS: band 8 at 426.82 nm, band 57 at 925.41 nm, band 77 at 912.45 nm
    np.testing.assert_allclose(scene.wavelength[[7, 56, 76]], [426.82, 925.41, 912.45])


def test_l1gst_in_small_letters_is_read(tmp_path):
    folder = raw.write_l1t(tmp_path / "p", level="l1gst", suffix="tif", SUN_ELEVATION=None)
    scene = open_scene(folder)
    assert (scene.attrs["level"], scene.attrs["scene_id"]) == ("L1GST", f"{raw.ENTITY}_1GST")
    assert np.isnan(scene.attrs["sun_elevation"])


def test_view_zenith_is_the_angle_at_the_ground(l1t):
    # A sphere of 6371 km, seen from 705 km above it, 2.1345 deg off nadir
    expected = np.degrees(np.arcsin((6371 + 705) / 6371 * np.sin(np.radians(2.1345))))
    assert open_scene(l1t).attrs["view_zenith"] == pytest.approx(expected, rel=1e-5)


def test_l1r_wavelengths_are_means_over_the_columns(l1r):
    scene = open_scene(l1r)
    np.testing.assert_allclose(scene.wavelength, 400 + 8 * np.arange(242), atol=1e-3)
    assert scene.flags.dtype == np.uint8
    assert "crs" not in scene.attrs
    assert scene.attrs["corners"]["ur"] == [13.1, 52.5]
    assert np.isnan(scene.attrs["sun_elevation"])
    assert scene.attrs["scene_id"] == f"{raw.ENTITY}_1R"


def test_l1r_takes_sun_angles_that_are_in_its_met(tmp_path):
    scene = open_scene(raw.write_l1r(tmp_path / "p", SUN_ELEVATION=41.5, SUN_AZIMUTH=150))
    assert (scene.attrs["sun_elevation"], scene.attrs["sun_azimuth"]) == (41.5, 150)


def test_l1r_flags_lie_on_the_samples_they_belong_to(tmp_path):
    flags = np.zeros((242, 70, 80), "u1")
    flags[99, 3, 7] = 2
    scene = open_scene(raw.write_l1r(tmp_path / "p", flags=flags))
    np.testing.assert_array_equal(scene.flags.values, flags)


def test_ahsi_has_its_own_gains_and_wavelengths(ahsi):
    scene = open_scene(ahsi)
    assert scene.attrs["platform"] == "GF-5B"
    assert scene.attrs["scene_id"] == raw.AHSI_NAME.replace(".", "p")
    # SolarZenith 60 is an angle from the zenith
    assert (scene.attrs["sun_elevation"], scene.attrs["sun_azimuth"]) == (30.0, 168.2)
    np.testing.assert_allclose(scene.gain[[0, 149, 150, 192, 194]], [0.09, 0.03, 0.09, -0.0002, 0])
    np.testing.assert_array_equal(scene.offset, 0.5)
    np.testing.assert_allclose(scene.wavelength[[0, 149, 150]], [387, 387 + 149 * 4.3, 1009])
    np.testing.assert_allclose(scene.fwhm[[0, 150]], [4.4, 8.5])


def test_gf5_with_other_names_tabs_and_one_column_is_read(tmp_path):
    name = "GF5_AHSI_E112.73_N29.83_20190122_003766_L10000036541"
    folder = raw.write_ahsi(
        tmp_path / "p", name=name, ext="geotiff", swapped=True, separator="\t", columns=1
    )
    scene = open_scene(folder)
    assert (scene.attrs["platform"], scene.attrs["scene_id"]) == ("GF-5", name.replace(".", "p"))
    np.testing.assert_array_equal(scene.offset, 0)
    np.testing.assert_allclose(scene.fwhm[[0, 329]], [4.3, 8.4])  # the channels' spacing


def test_sources_are_the_archive_or_each_file(l1t, tmp_path):
    from hashlib import sha256

    archive = raw.zipped(l1t, tmp_path / "EO1H1.zip")
    content = archive.read_bytes()
    expected = {"name": "EO1H1.zip", "bytes": len(content), "sha256": sha256(content).hexdigest()}
    assert open_scene(archive).attrs["sources"] == [expected]
    tgz = raw.tarred(l1t, tmp_path / "EO1H1.tgz")
    assert open_scene(tgz).attrs["sources"][0]["sha256"] == sha256(tgz.read_bytes()).hexdigest()
    files = open_scene(l1t).attrs["sources"]
    assert len(files) == 243
    first = (l1t / files[0]["name"]).read_bytes()
    assert files[0]["sha256"] == sha256(first).hexdigest()


def test_chunks_are_whole_rows_in_multiples_of_64(tmp_path):
    scene = open_scene(raw.write_l1t(tmp_path / "p", raw.hyperion_dn(130, 9)))
    assert scene.dn.chunks == ((242,), (130,), (9,))
    assert chunk_rows(242, 1100) == 64
    assert all(chunk_rows(242, cols) % 64 == 0 for cols in (1, 100, 256, 1000, 99999))


@pytest.mark.parametrize("packing", ["tgz", "txz", "tar", "zip"])
def test_an_archived_hdf_can_be_read_in_another_process(packing, l1r, tmp_path):
    scene = open_scene(PACKINGS[packing](l1r, tmp_path))
    again = pickle.loads(pickle.dumps(scene))  # noqa: S301  (our own)
    np.testing.assert_array_equal(again.dn.values, scene.dn.values)


@pytest.mark.parametrize("packing", ["tgz", "txz", "tar", "zip"])
def test_an_archived_hdf_leaves_no_open_file(packing, l1r, tmp_path):
    archive = PACKINGS[packing](l1r, tmp_path)
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    scene = open_scene(archive)
    assert len(os.listdir("/dev/fd")) > before
    del scene
    gc.collect()
    assert len(os.listdir("/dev/fd")) == before


def rejected(path, match):
    with pytest.raises(SceneError, match=match) as caught:
        open_scene(path)
    return caught.value


def test_rejects_what_is_no_product(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    error = rejected(tmp_path, "Hyperion L1T.*Hyperion L1R.*AHSI.*notes.txt")
    assert error.where == str(tmp_path)
    rejected(tmp_path / "absent", "nothing there")
    rejected(tmp_path / "notes.txt", r"a file \*\.txt")


def test_rejects_a_missing_mtl(l1t, tmp_path):
    folder = shutil.copytree(l1t, tmp_path / "p")
    (folder / f"{raw.ENTITY}_MTL_L1T.TXT").unlink()
    rejected(folder, r"an MTL file \(\*MTL\*\)")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"PRODUCT_LINES": 71}, "PRODUCT_LINES = 70"),
        ({"SCALING_FACTOR_SWIR": None}, "SCALING_FACTOR_SWIR"),
        ({"SCALING_FACTOR_SWIR": 0}, "positive scaling"),
        ({"SUN_ELEVATION": 91}, "SUN_ELEVATION in -90..90"),
        ({"SUN_ELEVATION": "NaN"}, "a number as SUN_ELEVATION"),
        ({"START_TIME": "yesterday"}, "a time like"),
    ],
)
def test_rejects_an_mtl_that_does_not_fit(changes, match, l1t, tmp_path):
    folder = shutil.copytree(l1t, tmp_path / "p")
    (folder / f"{raw.ENTITY}_MTL_L1T.TXT").write_text(raw.mtl_text(**changes))
    rejected(folder, match)


def test_rejects_a_band_on_another_grid(l1t, tmp_path):
    folder = shutil.copytree(l1t, tmp_path / "p")
    raw.write_tif(folder / f"{raw.ENTITY}_B100_L1T.TIF", np.ones((1, 70, 80), "i2"))
    assert rejected(folder, "as EO1H1930242013205110KF_B001").where.endswith("B100_L1T.TIF")


@pytest.mark.parametrize("keep", [0, 6000])
def test_rejects_a_tiff_cut_short(keep, l1t, tmp_path):
    folder = shutil.copytree(l1t, tmp_path / "p")
    band = folder / f"{raw.ENTITY}_B200_L1T.TIF"
    band.write_bytes(band.read_bytes()[:keep])
    assert rejected(folder, "cut short").where == str(band)


def test_rejects_blocks_that_were_never_written(l1t, tmp_path):
    import rasterio

    folder = shutil.copytree(l1t, tmp_path / "p")
    path = folder / f"{raw.ENTITY}_B200_L1T.TIF"
    with rasterio.open(path) as file:
        profile = {**file.profile, "sparse_ok": True, "blockysize": 10}
    with rasterio.open(path, "w", **profile) as file:
        for top in (0, 60):
            file.write(np.ones((10, 80), "i2"), 1, window=((top, top + 10), (0, 80)))
    scene = open_scene(folder)
    with pytest.raises(SceneError, match="never written") as caught:
        scene.dn.compute()
    assert caught.value.where == str(path)


def test_a_file_that_shrinks_after_opening_is_a_scene_error(l1t, tmp_path):
    folder = shutil.copytree(l1t, tmp_path / "p")
    scene = open_scene(folder)
    band = folder / f"{raw.ENTITY}_B200_L1T.TIF"
    band.write_bytes(band.read_bytes()[:5000])
    with pytest.raises(SceneError, match=r"B200_L1T\.TIF.*cut short"):
        scene.dn.compute()


@pytest.mark.parametrize("packing", ["zip", "tgz", "tar", "txz"])
@pytest.mark.parametrize("share", [0.2, 0.999])
def test_rejects_an_archive_cut_short(packing, share, l1t, tmp_path):
    path = PACKINGS[packing](l1t, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert rejected(path, "fetch").where == str(path)


@pytest.mark.parametrize("packing", ["tgz", "txz"])
def test_rejects_a_packed_tar_with_a_flipped_bit(packing, l1t, tmp_path):
    path = PACKINGS[packing](l1t, tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    rejected(path, "damaged or cut short")


@pytest.mark.parametrize("name", ["../EO1H_B001_L1T.TIF", "/tmp/x.TIF", "a/../../x.TIF"])
def test_rejects_members_that_escape(name, tmp_path):
    rejected(raw.tar_with(tmp_path / "EO1H1.tgz", name), "leads elsewhere")
    with zipfile.ZipFile(tmp_path / "EO1H1.zip", "w") as archive:
        archive.writestr(name, b"text")
    rejected(tmp_path / "EO1H1.zip", "leads elsewhere")


def test_rejects_links(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
        path = raw.tar_with(tmp_path / "EO1H1.tgz", "x_MTL.TXT", kind=kind, link="/etc/hostname")
        rejected(path, "a link")
    with zipfile.ZipFile(tmp_path / "EO1H1.zip", "w") as archive:
        info = zipfile.ZipInfo("x_MTL.TXT")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/hostname")
    rejected(tmp_path / "EO1H1.zip", "a link")
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "x_MTL.TXT").symlink_to("/etc/hostname")
    rejected(folder, "a link to")


@pytest.mark.parametrize("suffix", ["L1R", "AUX"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.98])
def test_rejects_an_hdf_cut_short(suffix, share, tmp_path):
    folder = raw.write_l1r(tmp_path / "p")
    path = folder / f"{raw.ENTITY}.{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert rejected(folder, "cut short").where == str(path)


def test_rejects_unsigned_l1_and_other_band_counts(tmp_path):
    dn = raw.hyperion_dn(3, 4)
    unsigned = raw.write_l1r(tmp_path / "a", dn.astype("u2"), kind=SDC.UINT16)
    rejected(unsigned, "one int16 data set.*uint16")
    rejected(raw.write_l1r(tmp_path / "b", dn[:241]), "242 bands")
    old = raw.write_l1r(tmp_path / "c", dn)
    (old / f"{raw.ENTITY}.L1R").rename(old / f"{raw.ENTITY}.L1")
    rejected(old, "unsigned and scaled by 100")
    (raw.write_l1r(tmp_path / "d", dn) / f"{raw.ENTITY}.MET").unlink()
    rejected(tmp_path / "d", "one .MET file")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (f"{raw.AHSI_NAME}.xml", "xml"),
        ("GF5B_AHSI_RadCal_SWIR.raw", "RadCal_SWIR"),
        ("GF5B_AHSI_Spectralresponse_VNIR.raw", "Spectralresponse_VNIR"),
        (f"{raw.AHSI_NAME}_VN.rpb", "rpb"),
        (f"{raw.AHSI_NAME}_SW.tif", "_SW.tif"),
    ],
)
def test_rejects_ahsi_without_one_of_its_files(name, match, tmp_path):
    folder = raw.write_ahsi(tmp_path / "p", raw.ahsi_dn(3, 4))
    (folder / name).unlink()
    rejected(folder, match)


def test_rejects_ahsi_of_other_shapes(tmp_path):
    dn = raw.ahsi_dn(3, 4)
    folder = raw.write_ahsi(tmp_path / "a", dn)
    raw.write_tif(folder / f"{raw.AHSI_NAME}_SW.tif", dn[150:329])
    rejected(folder, r"150 \+ 180 bands.*76 \+ 90.*got 150 \+ 179 of uint16")
    rejected(raw.write_ahsi(tmp_path / "b", dn, LinesInPixels=4), "LinesInPixels 3")
    rejected(raw.write_ahsi(tmp_path / "c", dn, SolarZenith=-1), "SolarZenith in 0..180")
    radcal = raw.write_ahsi(tmp_path / "d", dn) / "GF5B_AHSI_RadCal_VNIR.raw"
    radcal.write_text("\n".join(["0.1,0"] * 149))
    rejected(tmp_path / "d", "150 lines.*got 149")


def test_rejects_xml_that_grows(tmp_path):
    folder = raw.write_ahsi(tmp_path / "p", raw.ahsi_dn(3, 4))
    bomb = '<!DOCTYPE a [<!ENTITY b "bb">]><ProductMetaData>&b;</ProductMetaData>'
    (folder / f"{raw.AHSI_NAME}.xml").write_text(bomb)
    rejected(folder, "plain XML")


def test_finds_archives_and_product_folders_alone(l1t, tmp_path):
    (tmp_path / f"{raw.ENTITY}_1R.tgz").write_bytes(b"damaged")
    (tmp_path / "GF5B_AHSI_1.tar.xz").write_bytes(b"cannot be opened, but is not passed over")
    (tmp_path / "truth" / "labels").mkdir(parents=True)
    (tmp_path / "truth" / "labels" / "x.npy").write_bytes(b"")
    (tmp_path / "notes.zip").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("text")
    raw.write_ahsi(tmp_path / "a_product", raw.ahsi_dn(3, 4))
    found = find_scenes(tmp_path)
    expected = [f"{raw.ENTITY}_1R.tgz", "GF5B_AHSI_1.tar.xz", "a_product", "notes.zip"]
    assert [path.name for path in found] == expected
    # One stray file of a product hides no other product.
    (tmp_path / f"{raw.ENTITY}_B001_L1T.TIF").write_bytes(b"")
    assert [path.name for path in find_scenes(tmp_path)] == expected
    assert find_scenes(l1t) == [l1t]
    with pytest.raises(FileNotFoundError):
        find_scenes(tmp_path / "absent")


def test_a_zip_with_a_flipped_bit_fails_when_its_pixels_are_read(l1t, tmp_path):
    path = PACKINGS["zip"](l1t, tmp_path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.infolist()[120]
    place = member.header_offset + 30 + len(member.filename) + member.compress_size // 2
    content[place] ^= 0xFF
    path.write_bytes(content)
    scene = open_scene(path)
    with pytest.raises(SceneError, match="fetch it again"):
        scene.dn.compute()


KEYS = [
    np.s_[:, 3, 5],
    np.s_[7],
    np.s_[::-3, 2:9:2, ::-1],
    np.s_[-1, -4:, 6],
    np.s_[5:5, :, :],
    np.s_[[200, 3, 77], :, 4],
]


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("product", ["l1t", "l1r"])
def test_indexing_is_numpys(product, key, request):
    dn = open_scene(request.getfixturevalue(product)).dn.data
    np.testing.assert_array_equal(dn[key].compute(), dn.compute()[key])
