"""Reading a tgz from kept states of its decompressor, and files of several bands without GDAL."""

import copy
import gzip
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from pipeline.readers import gunzip, inflate, open_scene
from pipeline.readers.gdal import read_headers
from pipeline.readers.inflate import Gunzipped, MemberStreams
from pipeline.readers.plain import PlainBands
from pipeline.readers.product import open_product
from pipeline.readers.raster import raster_stack
from pipeline.readers.tiff import HEAD_BYTES, plain_image, read_head
from storage.schema import SceneError
from tests.pipeline import raw_products as raw

SHAPE = (12, 70, 50)
STEP = 2**13


@pytest.fixture
def cube():
    return np.random.default_rng(0).integers(1, 4000, SHAPE).astype("uint16")


@pytest.fixture
def folder(tmp_path, cube):
    folder = tmp_path / "p"
    folder.mkdir()
    for name, pixels in (("a.tif", cube), ("b.tif", cube[::-1])):
        raw.write_tif(folder / name, pixels, interleave="band")
    return folder


@pytest.fixture
def close(monkeypatch):
    """Keep states at small distances, as of small pieces."""
    monkeypatch.setattr(gunzip, "_DISTANCE", STEP)
    monkeypatch.setattr(gunzip, "_PACKED", 2**10)


def packed(folder, kind):
    if kind == "folder":
        return folder
    if kind == "members":  # several gzip members, zeros between and behind
        tar = raw.tarred(folder, folder.parent / "a.tar", mode="w").read_bytes()
        path = folder.parent / "a.tgz"
        cuts = [0, 700, 700, 90_000, len(tar)]
        parts = [gzip.compress(tar[i:j], 1) for i, j in pairwise(cuts)]
        path.write_bytes(b"\0".join(parts) + b"\0" * 1000)
        return path
    if kind == "zip":
        return raw.zipped(folder, folder.parent / "a.zip")
    mode = {"tar": "w", "tgz": "w:gz", "txz": "w:xz"}[kind]
    return raw.tarred(folder, folder.parent / f"a.{kind}", mode=mode)


def member_of(product, name="a.tif"):
    (member,) = product.find(name)
    return member


def stack_of(product, shape=SHAPE):
    return raster_stack(product, [member_of(product)], shape, "uint16")


@pytest.mark.usefixtures("close")
@pytest.mark.parametrize("kind", ["folder", "tar", "txz", "tgz", "members", "zip"])
def test_windows_of_a_file_of_several_bands_in_any_order_and_from_threads(kind, folder, cube):
    product = open_product(packed(folder, kind))
    stack = stack_of(product)
    assert stack.plain.has(stack.places[0][0]) == (kind != "zip")

    def check(seed):
        rng = np.random.default_rng(seed)
        for _ in range(15):
            key = tuple(slice(*sorted(rng.choice(n + 1, 2, replace=False))) for n in SHAPE)
            np.testing.assert_array_equal(stack[key], cube[key])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(check, range(3)))


@pytest.mark.usefixtures("close")
@pytest.mark.parametrize("kind", ["tgz", "members"])
def test_bytes_from_any_place_on_are_the_members(kind, folder):
    product = open_product(packed(folder, kind))
    content = (folder / "b.tif").read_bytes()
    member = member_of(product, "b.tif")
    rng = np.random.default_rng(1)
    for _ in range(50):
        first, end = sorted(rng.integers(0, len(content) + 1, 2).tolist())
        stream = MemberStreams(product).open(member)
        assert isinstance(stream, Gunzipped)
        assert stream.read(first, end - first) == content[first:end]
        assert stream.read(0, 10) == content[:10]


def inflated(monkeypatch):
    counts = []
    plain_gunzip = gunzip.gunzip

    def count(*args):
        counts.append(len(data := plain_gunzip(*args)))
        return data

    monkeypatch.setattr(inflate, "gunzip", count)
    return counts


@pytest.mark.usefixtures("close")
def test_each_byte_is_unpacked_about_once_when_strips_are_read_forward(folder, cube, monkeypatch):
    stack = stack_of(open_product(packed(folder, "tgz")))
    counts = inflated(monkeypatch)
    for row in range(0, SHAPE[1], 10):
        np.testing.assert_array_equal(stack[:, row : row + 10, :], cube[:, row : row + 10])
    # What lies between a kept state and its band's first pixel comes on top.
    assert sum(counts) <= cube.nbytes + (SHAPE[0] + 2) * (STEP + 2**13)


@pytest.mark.usefixtures("close")
def test_kept_states_are_thinned_out(folder, cube, monkeypatch):
    monkeypatch.setattr(gunzip, "_MOST", 5)
    product = open_product(packed(folder, "tgz"))
    states = product.checkpoints._states
    assert 2 < len(states) <= 6
    assert states[-1].position - states[-2].position >= 4 * STEP
    np.testing.assert_array_equal(stack_of(product)[:, 60:, :], cube[:, 60:])


@pytest.mark.usefixtures("close")
def test_states_do_not_travel_and_are_made_again_once(folder, cube, monkeypatch):
    product = open_product(packed(folder, "members"))
    assert copy.deepcopy(product).checkpoints is product.checkpoints
    content = pickle.dumps(stack_of(product))
    assert len(content) < 5000
    passes = []
    plain_unpacking = gunzip.Checkpoints.unpacking

    def unpacking(self, take):
        passes.append(self)
        return plain_unpacking(self, take)

    monkeypatch.setattr(gunzip.Checkpoints, "unpacking", unpacking)
    again = pickle.loads(content)  # noqa: S301  (our own)
    np.testing.assert_array_equal(again[3:, ::-2, :], cube[3:, ::-2])
    np.testing.assert_array_equal(again[:, 5, :], cube[:, 5])
    assert len(passes) == 1


def test_a_tgz_that_changes_after_it_was_listed_is_a_scene_error(folder):
    path = packed(folder, "tgz")
    stack = stack_of(open_product(path))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(SceneError, match=r"a\.tif: expected the member as it was listed"):
        np.asarray(stack[:, :, :])
    path.write_bytes(content[:5000] + b"\xff" * 3000 + content[8000:])
    with pytest.raises(SceneError, match="fetch it again"):
        np.asarray(pickle.loads(pickle.dumps(stack))[:, :, :])  # noqa: S301  (our own)


DAMAGED = {
    "cut": lambda data: data[:-9],
    "second member cut": lambda data: data + data[:40],
    "no gzip behind": lambda data: data + b"\0\0more",
    "checksum": lambda data: data[:-8] + bytes(4) + data[-4:],
    "length": lambda data: data[:-4] + bytes(4),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_rejects_a_gzip_that_is_damaged_behind_its_tar(damage, folder):
    path = packed(folder, "tgz")
    path.write_bytes(DAMAGED[damage](path.read_bytes()))
    with pytest.raises(SceneError, match="damaged or cut short"):
        open_product(path)


LAYOUTS = [
    {}, {"blockysize": 1}, {"blockysize": 7}, {"blockysize": 110}, {"ENDIANNESS": "BIG"}
]  # fmt: skip


@pytest.mark.parametrize("options", LAYOUTS)
def test_bands_one_by_one_are_where_the_layout_says(tmp_path, options):
    cube = np.random.default_rng(2).integers(0, 9999, (120, 110, 5)).astype("uint16")
    raw.write_tif(tmp_path / "a.tif", cube, interleave="band", **options)
    content = (tmp_path / "a.tif").read_bytes()
    layout = plain_image(read_head(lambda at, n: content[at : at + n], len(content)))
    assert layout.bands == 120
    for band, first, end in ((0, 0, 110), (7, 3, 4), (119, 15, 41)):
        parts = [content[a : a + n] for a, n in layout.spans(first, end, band)]
        pixels = np.frombuffer(b"".join(parts), f"{layout.byte_order}u2").reshape(-1, 5)
        np.testing.assert_array_equal(pixels, cube[band, first:end])
    if options.get("blockysize") == 1:  # 120 x 110 offsets and counts are in no short head
        assert plain_image(content[:HEAD_BYTES]) is None


OTHER = [{"interleave": "pixel"}, {"interleave": "band", "compress": "deflate"}]


@pytest.mark.parametrize("options", OTHER)
@pytest.mark.parametrize("kind", ["tgz", "zip", "folder"])
def test_what_else_has_several_bands_is_left_to_gdal(kind, options, folder, cube):
    raw.write_tif(folder / "a.tif", cube, **options)
    stack = stack_of(open_product(packed(folder, kind)))
    assert not stack.plain.has(stack.places[0][0])
    np.testing.assert_array_equal(stack[2:9, 5:60, 7:], cube[2:9, 5:60, 7:])
    some = [7, 2, 3, 11]
    np.testing.assert_array_equal(stack.take(some)[:, 5:9, :], cube[some, 5:9])


@pytest.mark.parametrize("kind", ["tgz", "tar"])
def test_bands_are_taken_out_of_files_of_several(kind, folder, cube):
    product = open_product(packed(folder, kind))
    members = [member_of(product, name) for name in ("a.tif", "b.tif")]
    stack = raster_stack(product, members, (2 * SHAPE[0], *SHAPE[1:]), "uint16")
    both = np.concatenate([cube, cube[::-1]])
    some = [20, 3, 4, 15, 3]
    np.testing.assert_array_equal(stack.take(some).lazy()[:, 9:30].compute(), both[some, 9:30])
    np.testing.assert_array_equal(stack.take(some).take([4, 0])[:, 1, :], both[[3, 20], 1])


@pytest.mark.parametrize("kind", ["tgz", "folder"])
def test_swir_is_not_read_for_vnir_alone(kind, tmp_path, monkeypatch):
    dn = raw.ahsi_dn()
    folder = raw.write_ahsi(tmp_path / "p", dn)
    scene = open_scene(raw.tarred(folder, tmp_path / "GF5B_AHSI.tgz") if kind == "tgz" else folder)
    read = set()
    plain_read = PlainBands.read

    def spy(self, wanted, rows, cols):
        read.update(member.basename for (member, _), _ in wanted)
        return plain_read(self, wanted, rows, cols)

    monkeypatch.setattr(PlainBands, "read", spy)
    np.testing.assert_array_equal(scene.dn[:150].values, dn[:150])
    assert read == {f"{raw.AHSI_NAME}_VN.tif"}
    np.testing.assert_array_equal(scene.dn.values, dn)
    assert len(read) == 2


def test_a_file_of_several_bands_agrees_with_gdal(folder):
    with rasterio.open(folder / "a.tif") as source:
        expected = source.read()
        assert source.interleaving.name == "band"
    stack = stack_of(open_product(packed(folder, "tgz")))
    np.testing.assert_array_equal(stack.lazy().compute(), expected)


@pytest.mark.parametrize("corner", [None, (362175, 5809965)])
def test_headers_in_a_tgz_are_what_gdal_says_of_the_files(corner, folder, cube, monkeypatch):
    grid = {} if corner is None else {"transform": from_origin(*corner, 30, 30)}
    raw.write_tif(folder / "a.tif", cube, interleave="band", crs="EPSG:32633", **grid)
    whole = open_product(folder)
    (expected,) = read_headers(whole, [member_of(whole)])
    product = open_product(packed(folder, "tgz"))
    monkeypatch.setattr("pipeline.readers.gdal.rasterio.open", None)
    assert read_headers(product, [member_of(product)]) == [expected]
    assert expected.crs == "EPSG:32633"


def test_a_file_in_a_tgz_that_ends_early_is_found_when_it_is_opened(folder):
    content = (folder / "a.tif").read_bytes()
    (folder / "a.tif").write_bytes(content[:-1])
    product = open_product(packed(folder, "tgz"))
    with pytest.raises(SceneError, match=f"got a file of {len(content) - 1} bytes"):
        read_headers(product, [member_of(product)])
