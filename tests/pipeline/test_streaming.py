"""Reading bands as they stream past: plain TIFF layouts, zip members, and what is opened."""

import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from pipeline.readers import open_scene, verify
from pipeline.readers.inflate import MemberStreams
from pipeline.readers.plain import PlainBands
from pipeline.readers.product import open_product
from pipeline.readers.tiff import HEAD_BYTES, plain_image
from pipeline.steps.bands import bands
from storage.schema import SceneError
from tests.pipeline import raw_products as raw

SHAPE = (70, 50)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(-300, 5000, SHAPE).astype("int16")


def write(path, image, **options):
    profile = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "count": 1, **options}
    with rasterio.open(path, "w", dtype="int16", **profile) as file:
        file.write(image, 1)
    return path.read_bytes()


@pytest.mark.parametrize(
    "options", [{}, {"blockysize": 1}, {"blockysize": 70}, {"ENDIANNESS": "BIG"}]
)
def test_plain_pixels_are_where_the_layout_says(tmp_path, image, options):
    image[:20] = 0  # GDAL writes such strips last
    content = write(tmp_path / "a.tif", image, **options)
    layout = plain_image(content[:HEAD_BYTES])
    for first, end in ((0, 70), (3, 4), (15, 41)):
        parts = [content[a : a + n] for a, n in layout.spans(first, end)]
        pixels = np.frombuffer(b"".join(parts), f"{layout.byte_order}i2").reshape(-1, 50)
        np.testing.assert_array_equal(pixels, image[first:end])


OTHER = [
    {"compress": "deflate"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"BIGTIFF": "YES"}
]  # fmt: skip


@pytest.mark.parametrize("options", OTHER)
def test_what_is_not_plain_is_left_to_gdal(tmp_path, image, options):
    assert plain_image(write(tmp_path / "a.tif", image, **options)[:HEAD_BYTES]) is None
    assert plain_image(b"II*\0\xff\xff\xff\xff" + b"\0" * 20) is None
    assert plain_image(b"") is None


@pytest.fixture
def zipped(tmp_path, image):
    names = {}
    for number in range(4):
        content = write(tmp_path / f"b{number}.tif", image + number)
        names[f"b{number}.tif"] = content
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return path


def test_rows_in_any_order_and_from_threads(zipped, image):
    product = open_product(zipped)
    reader = PlainBands(product, (1, *SHAPE), np.dtype("int16"))
    assert all(reader.has(member) for member in product.members)

    def check(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            first, end = sorted(rng.choice(71, 2, replace=False).tolist())
            left, right = sorted(rng.choice(51, 2, replace=False).tolist())
            out = {m: np.empty((end - first, right - left), "i2") for m in product.members}
            places = [((member, 0), pixels) for member, pixels in out.items()]
            reader.read(places, (first, end), slice(left, right))
            for number, member in enumerate(product.members):
                np.testing.assert_array_equal(out[member], image[first:end, left:right] + number)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(check, range(3)))


def test_each_byte_is_unpacked_once_when_read_forward(zipped, monkeypatch):
    product = open_product(zipped)
    stream = MemberStreams(product).open(product.members[0])
    unpacked = []
    plain_next = stream._next

    def count(state, limit):
        unpacked.append(len(data := plain_next(state, limit)))
        return data

    monkeypatch.setattr(stream, "_next", count)
    size = product.members[0].size
    for start in range(0, size, 1000):
        stream.read(start, min(1000, size - start))
    stream.finish()
    assert sum(unpacked) == size


def test_a_changed_member_is_found_when_its_end_is_read(zipped):
    with zipfile.ZipFile(zipped) as archive:
        info = archive.infolist()[1]
    content = bytearray(zipped.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 0x10
    zipped.write_bytes(content)
    product = open_product(zipped)
    stream = MemberStreams(product).open(product.members[1])
    with pytest.raises(SceneError, match=r"b1\.tif: expected \d+ bytes with checksum"):
        stream.finish()


def test_only_kept_bands_are_opened(tmp_path, monkeypatch):
    dn = raw.hyperion_dn(70, 66)
    scene = open_scene(raw.write_l1t(tmp_path / "p", dn))
    kept = bands(scene, name="hyperglobal")
    seen = set()
    plain_has = PlainBands.has

    def has(self, member):
        seen.add(member.basename)
        return plain_has(self, member)

    monkeypatch.setattr(PlainBands, "has", has)
    index = kept.band.values - 1
    np.testing.assert_array_equal(kept.dn.values, dn[index])
    assert len(seen) == 175
    # What was changed before is what is kept
    upside_down = bands(scene.isel(y=slice(None, None, -1)), name="hyperglobal")
    np.testing.assert_array_equal(upside_down.dn.values, dn[index, ::-1])


def test_a_window_agrees_with_gdal(tmp_path):
    path = raw.write_l1t(tmp_path / "p", raw.hyperion_dn(70, 66))
    scene = open_scene(path)
    file = next(path.rglob("*_B100_*"))
    with rasterio.open(file) as source:
        expected = source.read(1, window=Window(7, 11, 20, 30))
    np.testing.assert_array_equal(scene.dn[99, 11:41, 7:27].values, expected)


def flip(path, name, *, share):
    """Change one bit of a member's packed bytes, at a share of their length."""
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if name in info.filename)
    content = bytearray(path.read_bytes())
    start = info.header_offset + 30 + len(info.filename)
    content[start + int(share * info.compress_size)] ^= 0x10
    path.write_bytes(content)


def test_a_changed_bit_in_a_stored_member_is_found_too(tmp_path):
    folder = raw.write_l1t(tmp_path / "EO1H1930242013205110KF_1T", raw.hyperion_dn(70, 66))
    path = tmp_path / "EO1H1930242013205110KF_1T.ZIP"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.name)
    flip(path, "_B008_", share=0.5)
    scene = open_scene(path)
    with pytest.raises(SceneError, match=r"B008.*checksum"):
        bands(scene, name="hyperglobal").dn[:, :5].compute()


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_behind_the_rows_that_were_read_is_found_too(tmp_path, compressed):
    rng = np.random.default_rng(1)
    dn = rng.integers(1, 4000, (242, 600, 66)).astype("int16")
    folder = raw.write_l1t(tmp_path / "EO1H1930242013205110KF_1T", dn)
    if compressed:
        for file in folder.rglob("*.TIF"):
            with rasterio.open(file) as source:
                profile, pixels = source.profile | {"compress": "deflate"}, source.read()
            with rasterio.open(file, "w", **profile) as out:
                out.write(pixels)
    path = tmp_path / "EO1H1930242013205110KF_1T.ZIP"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.name)
    whole = bands(open_scene(path), name="hyperglobal")
    np.testing.assert_array_equal(whole.dn[0, :64].values, dn[7, :64])
    flip(path, "_B008_", share=0.9)

    def use():
        scene = open_scene(path)
        kept = bands(scene, name="hyperglobal")
        kept.dn[:, :64].compute()
        verify(scene)

    with pytest.raises(SceneError, match="B008"):
        use()
