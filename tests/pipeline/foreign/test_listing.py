import io
import os
import tarfile

import numpy as np
import pytest

from pipeline.foreign.listing import Entry, open_sources, split_name
from storage.shardtiles import Rejected
from tests.pipeline.foreign.inputs import npy_bytes, write_tar

ARRAY = npy_bytes(np.zeros((1, 64, 64), "i2"))


def listed(*given, member=None):
    return list(open_sources([str(path) for path in given], member).entries())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.npy", ("a", "npy")),
        ("a.tile.npy", ("a", "tile.npy")),
        ("GF5B_E115.6_N41.2_L1.mat", ("GF5B_E115.6_N41.2_L1", "mat")),
        ("GF5B_E115.6_N41.2_L1.img.NPY", ("GF5B_E115.6_N41.2_L1", "img.npy")),
        ("a.1", ("a.1", "")),
        (".npy", (".npy", "")),
    ],
)
def test_a_name_ends_where_its_extensions_begin(name, expected):
    assert split_name(name) == expected


def test_members_lie_where_they_are_said_to_lie(tmp_path):
    long = "d" * 90 + "/" + "e" * 80
    members = [
        ("a/x.npy", ARRAY),
        ("a/x.json", b"{}"),
        (f"{long}.npy", ARRAY + b""),
        ("b/x.npy", ARRAY),
    ]
    write_tar(tmp_path / "t.tar", members)
    found = listed(tmp_path / "t.tar")
    assert [entry.member for entry in found] == ["a/x.npy", f"{long}.npy", "b/x.npy"]
    data = (tmp_path / "t.tar").read_bytes()
    assert all(data[e.offset : e.offset + e.bytes] == ARRAY for e in found)
    assert [entry.name for entry in found] == ["x", "e" * 80, "x"]


def test_one_array_a_sample_unless_it_is_named(tmp_path):
    write_tar(tmp_path / "t.tar", [("x.tile.npy", ARRAY), ("x.cls", b""), ("x.label.npy", ARRAY)])
    assert [entry.reason for entry in listed(tmp_path)] == ["several arrays"] * 2
    (found,) = listed(tmp_path, member="tile.npy")
    assert found.member == "x.tile.npy"


def test_what_is_no_plain_file_is_named(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        link = tarfile.TarInfo("EO1.npy")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        tar.addfile(_folder())
    (tmp_path / "linked").symlink_to(tmp_path)
    found = listed(tmp_path)
    assert {(each.source, each.reason) for each in found} == {
        ("linked", "link"), ("t.tar:EO1.npy", "link"),
    }  # fmt: skip


def _folder():
    info = tarfile.TarInfo("folder")
    info.type = tarfile.DIRTYPE
    return info


def test_a_large_file_is_not_read(tmp_path):
    with (tmp_path / "EO1.mat").open("wb") as file:
        file.truncate(65 * 2**20)
    (found,) = listed(tmp_path)
    assert found.reason == "size"


def test_a_cut_tar_gives_what_is_whole(tmp_path):
    path = tmp_path / "t.tar"
    write_tar(path, [(f"{name}.npy", ARRAY) for name in "abc"])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"c.npy") + 600])
    *entries, lost = listed(path)
    assert [entry.name for entry in entries] == ["a", "b", "c"]
    assert (lost.source, lost.reason) == ("t.tar", "archive")


@pytest.mark.parametrize("damage", [b"\xff" * 512, b"x" + bytes(511)])
def test_damage_between_members_is_noticed(tmp_path, damage):
    path = tmp_path / "t.tar"
    write_tar(path, [(f"{name}.npy", ARRAY) for name in "abc"])
    data = bytearray(path.read_bytes())
    at = data.index(b"b.npy")
    data[at : at + 512] = damage
    path.write_bytes(data)
    entry, lost = listed(path)
    assert entry.name == "a"
    assert (lost.reason, str(at) in lost.detail) == ("archive", True)


def test_joined_tars_are_not_taken_for_one(tmp_path):
    path = tmp_path / "t.tar"
    write_tar(path, [("a.npy", ARRAY)])
    path.write_bytes(path.read_bytes() * 2)
    entry, lost = listed(path)
    assert (entry.name, lost.reason) == ("a", "archive")


def test_a_tar_without_its_end_is_whole(tmp_path):
    path = tmp_path / "t.tar"
    write_tar(path, [("a.npy", ARRAY)])
    path.write_bytes(path.read_bytes()[: 512 + -(-len(ARRAY) // 512) * 512])
    assert [entry.name for entry in listed(path)] == ["a"]


@pytest.mark.parametrize("seed", range(30))
def test_no_damage_ends_the_listing(tmp_path, seed):
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=[tarfile.GNU_FORMAT, tarfile.PAX_FORMAT][seed % 2]
    ) as tar:
        for name in ("a", "b" * 120, "ü"):
            info = tarfile.TarInfo(f"{name}.npy")
            info.size = 100
            tar.addfile(info, io.BytesIO(bytes(100)))
    data = np.frombuffer(file.getvalue(), "u1").copy()
    places = rng.integers(0, len(data) // 2, 20)
    data[places] = rng.integers(0, 256, 20)
    (tmp_path / "t.tar").write_bytes(data)
    assert all(isinstance(each, Entry | Rejected) for each in listed(tmp_path))


def test_numbers_in_braces_are_files(tmp_path):
    for number in range(9, 12):
        write_tar(tmp_path / f"s-{number:03d}.tar", [(f"k{number}.npy", ARRAY)])
    found = listed(tmp_path / "s-{009..011}.tar")
    assert [entry.source for entry in found] == ["s-009.tar", "s-010.tar", "s-011.tar"]
    with pytest.raises(FileNotFoundError, match="s-012"):
        listed(tmp_path / "s-{009..012}.tar")
    with pytest.raises(FileNotFoundError, match="s-012"):
        listed(tmp_path / "s-{009..999999999999}.tar")


@pytest.mark.parametrize(("given", "words"), [("", "an empty name"), ("s-{9..1}.tar", "that grow")])
def test_what_names_nothing_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        listed(given)


@pytest.mark.parametrize("suffix", [".npy", ".tar"])
def test_a_pipe_and_a_link_to_nothing_are_left_out(tmp_path, suffix):
    os.mkfifo(tmp_path / f"a{suffix}")
    (tmp_path / f"b{suffix}").symlink_to("nothing")
    assert [(found.source, found.reason) for found in listed(tmp_path)] == [
        (f"a{suffix}", "link"), (f"b{suffix}", "link"),
    ]  # fmt: skip


def test_a_file_is_listed_once(tmp_path):
    write_tar(tmp_path / "a.tar", [("k.npy", ARRAY)])
    assert len(listed(tmp_path, tmp_path / "a.tar", tmp_path)) == 1
