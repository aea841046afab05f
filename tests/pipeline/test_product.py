import copy
import io
import lzma
import os
import pickle
import tarfile
import zipfile
import zlib
from hashlib import sha256

import pytest

from pipeline.readers.product import open_product
from storage.schema import SceneError
from tests.pipeline import raw_products as raw

CONTENT = {"EO1H_B001.TIF": bytes(range(256)) * 40, "EO1H_MTL.TXT": b"A = 1\n", "empty.bin": b""}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "product"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


def rejected(path, match):
    with pytest.raises(SceneError, match=match) as caught:
        open_product(path)
    assert str(path) in caught.value.where


def test_a_zip_says_where_each_members_bytes_are(folder, tmp_path):
    path = raw.zipped(folder, tmp_path / "a.zip", prefix="x/")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("x/stored.bin", b"as it is")
    data = path.read_bytes()
    expected = {f"x/{name}": content for name, content in CONTENT.items()}
    found = {}
    for member in open_product(path).members:
        zipped = member.zipped
        packed = data[zipped.offset : zipped.offset + zipped.size]
        content = packed if zipped.method == "stored" else zlib.decompress(packed, -15)
        assert (len(content), zlib.crc32(content)) == (member.size, zipped.crc)
        found[member.name] = content
    assert found == expected | {"x/stored.bin": b"as it is"}


def test_opening_a_zip_inflates_nothing(folder, tmp_path, monkeypatch):
    path = raw.zipped(folder, tmp_path / "a.zip")

    def never(*args, **kwargs):
        raise AssertionError("unpacked a member while listing the archive")

    monkeypatch.setattr(zipfile.ZipFile, "open", never)
    assert len(open_product(path).members) == 3


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_is_hashed_and_its_members_found(mode, folder, tmp_path):
    path = raw.tarred(folder, tmp_path / "a.tar", mode=mode, prefix="x/")
    product = open_product(path)
    assert product.kind == {"w": "tar", "w:gz": "tgz", "w:xz": "txz"}[mode]
    assert product.sha256 == sha256(path.read_bytes()).hexdigest()
    for name, (file, start) in product.files(product.members).items():
        size = next(m.size for m in product.members if m.name == name)
        assert os.pread(file.fileno(), size, start) == CONTENT[name.removeprefix("x/")]
        file.close()


def test_an_xz_of_several_streams_and_padding_is_read_to_its_end(folder, tmp_path):
    tar = raw.tarred(folder, tmp_path / "a.tar", mode="w").read_bytes()
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(tar[:700]) + b"\0" * 8 + lzma.compress(tar[700:]) + b"\0" * 4)
    product = open_product(path)
    assert [m.size for m in product.members] == [len(c) for _, c in sorted(CONTENT.items())]
    assert product.sha256 == sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes() + lzma.compress(b"more")[:20])
    rejected(path, "ends before its end mark")


def test_a_tar_xz_is_unpacked_again_in_another_process(folder, tmp_path):
    product = open_product(raw.tarred(folder, tmp_path / "a.txz", mode="w:xz"))
    again = pickle.loads(pickle.dumps(product))  # noqa: S301  (our own)
    for each in (product, again, copy.deepcopy(product)):
        member, file = each.members[0], each.unpacked.file()
        assert os.pread(file.fileno(), member.size, member.offset) == CONTENT[member.basename]


@pytest.mark.parametrize("suffix", ["zip", "tgz"])
def test_rejects_two_members_of_one_name(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.TIF", b"1")
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("x.TIF", b"1")
    else:
        with tarfile.open(path, "w:gz") as archive:
            for _ in range(2):
                archive.addfile(tarfile.TarInfo("x.TIF"))
    rejected(path, "two of that name")


def test_rejects_zip_members_that_share_bytes(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.TIF", b"1" * 100)
        archive.writestr("b.TIF", b"1" * 100)
        archive.getinfo("b.TIF").header_offset = 0
    rejected(path, "members overlap")


@pytest.mark.parametrize(("mode", "packed"), [("w:gz", "tgz"), ("w:xz", "txz")])
def test_rejects_a_tar_that_unpacks_to_too_much(mode, packed, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.readers.listing.UNPACKED_LIMIT", 2**20)
    path = tmp_path / f"a.{packed}"
    with tarfile.open(path, mode) as archive:
        info = tarfile.TarInfo("x.bin")
        info.size = 2**24
        archive.addfile(info, io.BytesIO(bytes(2**24)))
    rejected(path, "unpacks to at most [0-9]{7} bytes")


def test_rejects_a_zip_that_unpacks_to_too_much(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.bin", b"")
        archive.getinfo("x.bin").file_size = 2**40
    rejected(path, "unpacks to at most 1073741824 bytes")


def test_rejects_a_header_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("././@PaxHeader")
        info.type, info.size = tarfile.XHDTYPE, 2**26
        archive.addfile(info, io.BytesIO(bytes(2**26)))
    rejected(path, "a header of 67108864 bytes")


@pytest.mark.parametrize("name", ["a\x1b[31m.TIF", "a" * 1100])
def test_rejects_names_that_no_message_can_hold(name, tmp_path):
    rejected(raw.tar_with(tmp_path / "a.tgz", name), "too long or of unprintable")


def test_rejects_more_files_than_a_product_has(tmp_path):
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for i in range(10_001):
            archive.addfile(tarfile.TarInfo(f"{i}"))
    rejected(path, "at most 10000 files")
