"""Damage of every kind to small raw products, chosen by integers that hypothesis picks."""

import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from dataclasses import dataclass

type Files = list[tuple[str, bytes]]
"""Names and contents, in order; a name may be there twice."""

NUMBERS = (0, 1, 2, 3, 255, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**30)
VALUES = (
    b"nan", b"NaN", b"inf", b"-inf", b"1e400", b"-1e400", b"1e308", b"", b"0", b"-1", b"9" * 5000,
    b"0x10", b"1_0", b"\xff\xfe", b"\0", b"../../etc/passwd", "३".encode(), b'"', b"(1, 2)", b"-33",
    b"99999999999999999999", b"1" + b"e" * 9, b"2013 366 24:61:61", b"0000-00-00", b"PS", b"61",
)  # fmt: skip
NAMES = (
    "../{}", "/tmp/{}", "C:\\{}", "a/../../{}", "..\\{}", "a/b/c/d/e/{}", "./{}", "//{}", "x/{}/",
    "{}\0.TIF", "\x1b[2J{}", "{}" + "x" * 60_000, "ü{}", "{}.bak", "._{}", "a//{}", " {}", "{{}}{}",
)  # fmt: skip
LAUGHS = b"".join(
    b'<!ENTITY a%d "%s">' % (i + 1, b"&a%d;" % i * 10) for i in range(9)
)  # fmt: skip
XMLS = (
    b'<!DOCTYPE a [<!ENTITY a0 "ha">' + LAUGHS + b"]><ProductMetaData>&a9;</ProductMetaData>",
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><ProductMetaData>&x;</ProductMetaData>',
    b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><ProductMetaData/>',
    b"<a>" * 150_000 + b"</a>" * 149_000,
    b"<a>" * 40_000 + b"</a>" * 40_000,
    b'<?xml version="1.0" encoding="utf-7"?><ProductMetaData/>',
    b'<?xml version="1.0" encoding="no-such"?><ProductMetaData/>',
    b"<a " + b" ".join(b'b%d=""' % i for i in range(50_000)) + b"/>",
    b"<" + b"a" * 900_000,
)
TEXTS = (
    b" " * 900_000, b"A" * 900_000, b"=" * 900_000, b"A = " + b" " * 900_000 + b";x",
    b"(" * 500_000, b"\n" * 900_000, b"A=\n" * 300_000, b"1," * 400_000, b"\xef\xbb\xbf",
    b"\0" * 5000,
)  # fmt: skip
TEXT = (".txt", ".met", ".xml", ".rpb", ".raw", ".csv")


@dataclass(frozen=True)
class Damage:
    """One damage: which kind, to which file, where, and with what."""

    kind: str
    file: int
    place: int
    value: int


def truncate(data: bytes, at: int, value: int) -> bytes:
    return data[: at % (len(data) + 1)]


def flip(data: bytes, at: int, value: int) -> bytes:
    return overwritten(data, at, bytes([data[at % len(data)] ^ (value % 255 + 1)])) if data else b""


def fill(data: bytes, at: int, value: int) -> bytes:
    return overwritten(data, at, bytes([0xFF * (value & 1)]) * (value % 97))


def splice(data: bytes, at: int, value: int) -> bytes:
    return overwritten(data, at, data[value % (len(data) + 1) :][: value % 61])


def insert(data: bytes, at: int, value: int) -> bytes:
    at %= len(data) + 1
    return data[:at] + struct.pack("<I", value) * (value % 40) + data[at:]


def absurd_number(data: bytes, at: int, value: int) -> bytes:
    """Put a number where structure is: near the start or the end."""
    at = at % 400 if value & 64 else len(data) - 1 - at % 3000
    number = NUMBERS[value % len(NUMBERS)]
    return overwritten(data, max(at, 0), number.to_bytes(4, "big" if value & 128 else "little"))


def tiff_tag(data: bytes, at: int, value: int) -> bytes:
    """Put an absurd tag, type, count or value into a TIFF's directory, or HDF4's."""
    if data[:4] == b"\x0e\x03\x13\x01" and len(data) > 40:
        return hdf_descriptor(data, at, value)
    if data[:4] != b"II*\0" or len(data) < 8:
        return absurd_number(data, at, value)
    (directory,) = struct.unpack_from("<I", data, 4)
    if directory + 2 > len(data):
        return flip(data, at, value)
    (count,) = struct.unpack_from("<H", data, directory)
    entry = directory + 2 + 12 * (at % max(count, 1))
    number = NUMBERS[value % len(NUMBERS)]
    field = (value >> 8) % 5
    if field == 0:
        tags = (
            256,
            257,
            258,
            259,
            262,
            273,
            277,
            278,
            279,
            284,
            317,
            322,
            323,
            324,
            325,
            339,
            33550,
        )
        return overwritten(data, entry, struct.pack("<H", tags[value % len(tags)]))
    if field == 1:
        return overwritten(data, entry + 2, struct.pack("<H", number % 65536))
    return overwritten(data, entry + (4 if field == 2 else 8), struct.pack("<I", number))


def hdf_descriptor(data: bytes, at: int, value: int) -> bytes:
    """Put another's or an absurd tag, reference, offset or length into an HDF4 descriptor."""
    (count,) = struct.unpack_from(">H", data, 4)
    entry, other = (10 + 12 * (i % max(count, 1)) for i in (at % 40, value % 40))
    start, size = ((0, 2), (2, 2), (4, 4), (8, 4), (0, 12))[(value >> 8) % 5]
    new = data[other + start : other + start + size]
    if value & 64 and size == 4:
        new = NUMBERS[value % len(NUMBERS)].to_bytes(4, "big")
    return overwritten(data, entry + start, new)


def metadata_value(data: bytes, at: int, value: int) -> bytes:
    """Put an absurd value into a line or an element of a text."""
    lines = data.replace(b"><", b">\n<").splitlines()
    if not lines:
        return VALUES[value % len(VALUES)]
    absurd, line = VALUES[value % len(VALUES)], at % len(lines)
    for before, after in ((b"=", b""), (b">", b"<"), (b",", b""), (b"\t", b"")):
        head, found, rest = lines[line].partition(before)
        if found:
            tail = after + rest.partition(after)[2] if after else b""
            lines[line] = head + found + absurd + tail
            return b"\n".join(lines)
    lines[line] = absurd
    return b"\n".join(lines)


def other_text(data: bytes, at: int, value: int) -> bytes:
    texts = (*XMLS, *TEXTS, data.decode("latin-1").encode("utf-16"), b"\xef\xbb\xbf" + data)
    return texts[value % len(texts)]


def empty(data: bytes, at: int, value: int) -> bytes:
    return b""


CONTENT = {f.__name__: f for f in (truncate, flip, fill, splice, insert, absurd_number, tiff_tag,
                                   metadata_value, other_text, empty)}  # fmt: skip


def drop(files: Files, i: int, value: int) -> Files:
    return files[:i] + files[i + 1 :]


def twice(files: Files, i: int, value: int) -> Files:
    name, data = files[i]
    other = (name, f"x/{name}", f"{name}.bak", name.lower())[value % 4]
    return [*files, (other, data if value & 4 else files[value % len(files)][1])]


def swap(files: Files, i: int, value: int) -> Files:
    j = value % len(files)
    out = list(files)
    out[i], out[j] = (files[i][0], files[j][1]), (files[j][0], files[i][1])
    return out


def rename(files: Files, i: int, value: int) -> Files:
    name, data = files[i]
    return [*files[:i], (NAMES[value % len(NAMES)].format(name), data), *files[i + 1 :]]


def take_name(files: Files, i: int, value: int) -> Files:
    return [*files[:i], (files[value % len(files)][0], files[i][1]), *files[i + 1 :]]


def grow(files: Files, i: int, value: int) -> Files:
    """Put a file of many zeros in, in place of one or beside it."""
    name, data = files[i]
    bomb = bytes(2 ** (20 + value % 5))
    return [*files, (f"zeros{value}.TIF", bomb)] if value & 32 else [
        *files[:i], (name, data + bomb), *files[i + 1 :]]  # fmt: skip


LIST = {f.__name__: f for f in (drop, twice, swap, rename, take_name, grow)}
PACKED = ("truncate", "flip", "fill", "splice", "insert", "absurd_number")
TYPES = {
    "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "device": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE, "sparse": tarfile.GNUTYPE_SPARSE, "huge": tarfile.REGTYPE,
    "header": tarfile.XHDTYPE,
}  # fmt: skip
KINDS = (*CONTENT, *CONTENT, *LIST, *(f"archive {k}" for k in PACKED), *TYPES)
"""Damages of content are twice as likely."""


def damaged(files: Files, damages: list[Damage]) -> Files:
    """Return the files after the damages to contents and names."""
    for damage in damages:
        if not files:
            break
        # Half of the damages go to texts and small files, of which there are few.
        few = [i for i, (n, _) in enumerate(files) if n.lower().endswith(TEXT)]
        places = few if damage.file & 1 and few else range(len(files))
        i = places[(damage.file >> 1) % len(places)]
        name, data = files[i]
        if damage.kind in CONTENT:
            new = CONTENT[damage.kind](data, damage.place, damage.value)
            files = [*files[:i], (name, new), *files[i + 1 :]]
        elif damage.kind in LIST:
            files = LIST[damage.kind](files, i, damage.value)
    return files


def packed(files: Files, packing: str, damages: list[Damage]) -> bytes:
    """Return the files as an archive, after the damages to it."""
    links = [d for d in damages if d.kind in TYPES]
    data = _zip(files, links) if packing == "zip" else _tar(files, links)
    if packing == "tgz":
        data = gzip.compress(data, 1, mtime=0)
    elif packing == "txz":
        data = lzma.compress(data, preset=0)
    for damage in damages:
        if damage.kind.startswith("archive "):
            data = CONTENT[damage.kind[8:]](data, damage.place, damage.value)
    return data


def overwritten(data: bytes, at: int, new: bytes) -> bytes:
    at %= len(data) + 1
    return data[:at] + new + data[at + len(new) :]


def _zip(files: Files, links: list[Damage]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in files:
            archive.writestr(name, data)
        for link in links:
            name = files[link.file % len(files)][0] if link.value & 1 else f"link{link.value}"
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if link.kind != "device" else 0o020777) << 16
            archive.writestr(info, "/etc/passwd")
            last = archive.filelist[link.place % len(archive.filelist)]
            if link.kind == "huge":
                last.file_size = 2 ** (20 + link.value % 43)
            elif link.kind == "header":
                last.header_offset = link.place % 2**31
            elif link.kind == "sparse":
                last.compress_size = 2 ** (link.value % 40)
    return out.getvalue()


def _tar(files: Files, links: list[Damage]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for link in links:
            name = files[link.file % len(files)][0] if link.value & 2 else f"link{link.value}"
            info = tarfile.TarInfo(name[:90])
            info.type, info.linkname = TYPES[link.kind], "../../etc/passwd"
            if link.kind == "header" and link.value & 1:
                info.type = tarfile.GNUTYPE_LONGNAME
            if link.kind in ("huge", "sparse", "header"):
                info.size = 2 ** (link.value % 60)
            archive.fileobj.write(info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape"))
    return out.getvalue()
