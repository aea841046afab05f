import csv
import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.synth.light import read_bands
from pipeline.synth.world import class_shares, degrees, make_world

SHARED = Path(__file__).parents[3] / "../shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="no reference tables beside the repo")


FAMILIES = ["hyperion-l1t", "hyperion-l1gst", "hyperion-l1r", "gf5b", "gf5"]


@pytest.fixture(params=FAMILIES)
def measured(request, scenes, ahsi_products, l1t, l1gst, l1r):
    """A scene and its DN (band, y, x)."""
    family = request.param
    if family in ahsi_products:
        rasters = ahsi_products[family].rasters
        return scenes[family], np.concatenate([rasters["VN"].dn, rasters["SW"].dn])
    if family == "hyperion-l1r":
        (image,) = l1r.image.data.values()
        return scenes[family], image.transpose(1, 0, 2)
    return scenes[family], {"hyperion-l1t": l1t, "hyperion-l1gst": l1gst}[family].dn


def true_reflectance(truth, bands):
    """(band, y, x), from the abundances, as the package's docstring says."""
    return np.einsum("eb,eyx->byx", truth.reflectance[:, bands], truth.abundance.astype("f4"))


def radiance(scene, dn, bands):
    """(band, y, x) by the sensors' own rule, written out."""
    if scene.platform == "EO1":
        divisor = np.where(bands < 70, 40.0, 80.0)  # bands 1-70 are VNIR
        return dn[bands] / divisor[:, None, None]
    truth = scene.truth
    return truth.gain[bands, None, None] * dn[bands] + truth.offset[bands, None, None]


def test_truth_lies_on_the_grid_and_labels_are_the_largest_share(measured):
    scene, dn = measured
    truth, labels = scene.truth, scene.labels
    assert labels.dtype == np.uint8
    assert labels.shape == dn.shape[1:] == truth.lon.shape == (scene.lines, scene.samples)
    assert np.array_equal(labels > 0, truth.valid)
    assert scene.labelled == np.count_nonzero(labels)
    share = class_shares(make_world(3), truth.lon.astype(float), truth.lat.astype(float))
    sure = truth.valid & (share.max(axis=0) > 0.52)
    assert np.array_equal(labels[sure], share.argmax(axis=0)[sure] + 1)


def test_every_class_has_a_share_and_a_name(out, scenes):
    names = json.loads((out / "truth" / "labels" / "classes.json").read_text())
    assert len(names) == len(set(names)) == 6
    for scene in scenes.values():
        counts = np.bincount(scene.labels[scene.labels > 0], minlength=7)[1:]
        assert len(counts) == 6
        assert counts.min() > 0.05 * counts.sum()


def test_every_6_km_of_every_landscape_has_every_class():
    side = np.arange(0, 6, 0.1)
    for seed in range(4):
        world = make_world(seed)
        for corner in ((-30, -30), (-3, -3), (20, -9), (11, 25)):
            east, north = np.meshgrid(corner[0] + side, corner[1] + side)
            share = class_shares(world, *degrees(east, north))
            counts = np.bincount(share.argmax(axis=0).ravel(), minlength=6)
            assert counts.min() > 0.03 * counts.sum()
            # Borders are narrow.
            assert (share.max(axis=0) > 0.9).mean() > 0.6


def test_dn_are_the_forward_model_within_noise(measured):
    scene, dn = measured
    truth = scene.truth
    bands = np.flatnonzero(truth.live)[::7]
    rows = slice(20, -20, 5)
    level = np.einsum("b,byx->byx", truth.irradiance[bands] * truth.transmittance[bands],
                      true_reflectance(truth, bands)[:, rows])  # fmt: skip
    expected = truth.cosine * level + truth.path[bands, None, None]
    found = radiance(scene, dn[:, rows], bands)
    use = np.broadcast_to(truth.valid[rows], found.shape) & (dn[bands][:, rows] > 1)
    use &= dn[bands][:, rows] < 32767 if scene.platform == "EO1" else dn[bands][:, rows] < 4095
    if scene.family == "hyperion-l1r":
        # Near the middle of the swath the wavelengths are the nominal ones.
        use[:, :, :100] = use[:, :, 156:] = False
    # 0.4 % to 3 % of noise and stripes, half a DN of rounding, more where there is no light.
    sunlit = 0.3 * truth.cosine * truth.irradiance[bands]
    for band, index in enumerate(bands):
        error = (found - expected)[band][use[band]]
        assert abs(np.median(error)) < 0.01 * sunlit[band] + truth.gain[index], index
        assert error.std() < 0.03 * sunlit[band] + truth.gain[index], index


def test_cosine_is_that_of_date_and_sun(scenes):
    for scene in scenes.values():
        day = datetime.fromisoformat(scene.acquired).timetuple().tm_yday
        distance = 1 - 0.01672 * np.cos(np.deg2rad(0.9856 * (day - 4)))
        expected = np.sin(np.deg2rad(scene.sun_elevation)) / (np.pi * distance**2)
        assert scene.truth.cosine == pytest.approx(expected, rel=2e-3)


def test_air_absorbs_where_air_absorbs(scenes):
    truth = scenes["hyperion-l1t"].truth

    def at(nanometres):
        return truth.transmittance[np.argmin(np.abs(truth.wavelength - nanometres))]

    assert at(1380) < 0.01
    assert at(1880) < 0.01
    for band, shoulder in ((762, 780), (940, 1040), (1136, 1060), (2006, 2150)):
        assert at(band) < at(shoulder) - 0.1
    blue, red = np.searchsorted(truth.wavelength[:70], (450, 650))
    ratio = truth.path / truth.irradiance
    # Rayleigh alone would give (650 / 450)^4.08 = 4.5.
    assert 2.5 < ratio[blue] / ratio[red] < 4.6


def test_classes_are_told_apart_by_their_toa_spectra(measured):
    scene, dn = measured
    truth, labels = scene.truth, scene.labels
    bands = np.flatnonzero(truth.live)[::6]
    toa = radiance(scene, dn, bands) / (truth.cosine * truth.irradiance[bands, None, None])
    upper = np.arange(labels.shape[0])[:, None] < labels.shape[0] // 2
    centres = np.stack([
        np.median(toa[:, (labels == label) & upper], axis=1) for label in range(1, 7)
    ])  # fmt: skip
    test = (labels > 0) & ~upper
    test[::2] = False
    pixels = toa[:, test].T
    distance = ((pixels[:, None] - centres) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) + 1 == labels[test]).mean() > 0.9


def test_scenes_of_one_place_agree_at_another_date(scenes):
    one, two = scenes["hyperion-l1t"].truth, scenes["gf5b"].truth
    # The nearest pixel of the second scene for a few pixels of the first.
    agree = []
    for row, column in [(r, c) for r in range(150, 240, 15) for c in range(120, 240, 15)]:
        east = (two.lon - one.lon[row, column]) * 88.7
        gap = np.hypot(east, (two.lat - one.lat[row, column]) * 111)
        if gap.min() < 0.03:
            near = np.unravel_index(gap.argmin(), gap.shape)
            same = scenes["hyperion-l1t"].labels[row, column] == scenes["gf5b"].labels[near]
            agree.append(bool(same))
    assert len(agree) > 20
    assert np.mean(agree) > 0.85


@needs_shared
def test_bands_are_those_of_the_reference_tables():
    for sensor, table in (("hyperion", "hyperion_bands.csv"), ("gf5b", "ahsi_bands.csv")):
        with (SHARED / "sensors" / table).open() as file:
            rows = list(csv.DictReader(file))
        bands = read_bands(sensor)
        for name, values in (
            ("band", bands.number), ("centre_nm", bands.wavelength), ("fwhm_nm", bands.fwhm),
        ):  # fmt: skip
            np.testing.assert_allclose([float(row[name]) for row in rows], values)
        assert [row["detector"] == "SWIR" for row in rows] == bands.swir.tolist()


@needs_shared
@pytest.mark.parametrize(
    ("family", "table"), [("hyperion-l1t", "hyperion_bands.csv"), ("gf5b", "ahsi_bands.csv")]
)
def test_irradiance_is_that_of_the_reference_tables(scenes, family, table):
    with (SHARED / "sensors" / table).open() as file:
        expected = [float(row["esun_tsis1v2"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(scenes[family].truth.irradiance, expected, rtol=1e-2)


@needs_shared
def test_spectra_are_the_measured_ones(scenes):
    with np.load(SHARED / "data" / "spectra" / "rf77_splib07_1nm.npz") as library:
        grid = library["grid"] * 1000
        measured = dict(zip(library["label"].tolist(), library["spectra"], strict=True))
    truth = scenes["gf5b"].truth
    inside = (truth.wavelength > 400) & (truth.wavelength < 2450)
    for endmember, label in (
        ("spruce_needles", "Engelmann-Spruce_ES-Needls-1_ASDFRa_AREF"),
        ("dolomite", "Dolomite_HS102.3B_BECKb_AREF"),
        ("chlorite", "Chlorite_SMR-13.a_104-150um_BECKa_AREF"),
    ):
        ours = truth.reflectance[truth.endmember.tolist().index(endmember)]
        expected = np.interp(truth.wavelength, grid, measured[label])
        np.testing.assert_allclose(ours[inside], expected[inside], atol=0.02)
