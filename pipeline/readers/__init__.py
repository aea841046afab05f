"""Raw products in, lazy scene Datasets out."""

import functools
import logging
import re
from pathlib import Path

import xarray as xr

from pipeline.readers import ahsi, enmap, hyperion, hyperion_l1r
from pipeline.readers.product import open_product
from storage.schema import SceneError

logger = logging.getLogger(__name__)

READERS = (
    (hyperion.matches, hyperion.open_hyperion, hyperion.LOOKED_FOR),
    (hyperion_l1r.matches, hyperion_l1r.open_hyperion_l1r, hyperion_l1r.LOOKED_FOR),
    (ahsi.matches, ahsi.open_ahsi, ahsi.LOOKED_FOR),
    (enmap.matches, enmap.open_enmap, enmap.LOOKED_FOR),
)
"""Of each product family: does a product look like it, open it, and in words what it has."""

# Wider than what can be opened, so that a product in a 7z is reported and not passed over.
_ARCHIVE = re.compile(r"(?i)\.(zip|tgz|txz|7z|rar|tar(\.\w+)?)$")
_FILE = re.compile(
    r"(?i)(_B\d{3}[_.]L1(T|GST)(\.\w+)?|EO1H.*MTL.*|\.L1(R|_[AB])?|AHSI.*_(VN|SW)\.\w*tiff?"
    r"|ENMAP.*-SPECTRAL_IMAGE\.tiff?)$"
)


def open_scene(uri: str | Path) -> xr.Dataset:
    """Open a raw product, folder or archive, as a lazy scene; no pixel is read.

    An archive is read where it lies, once through to hash and check it; nothing is unpacked.

    Returns:
        `dn` (band, y, x), the product's own integers; `flags` (band, y, x) uint8 where it has
        them. Coords on band: `band` (1-based), `wavelength`, `fwhm` [nm], `detector`, `gain`,
        `offset` (radiance = gain * dn + offset [W m-2 sr-1 um-1]). Attrs: `sensor`, `platform`,
        `scene_id`, `level`, `acquired`, `sun_elevation`, `sun_azimuth`, `view_zenith` [deg],
        `nodata`, `crs` and `transform`, or `rpc`, or `corners`; `sources`.
        Chunks: all bands of a file or a detector, a multiple of 64 rows, all columns. Pixels
        that are not in the file raise SceneError when they are computed.

    Raises:
        SceneError: It is no product that is known, or not a whole one.
    """
    product = open_product(Path(uri))
    for matches, open_it, _ in READERS:
        if matches(product):
            return open_it(product)
    names = ", ".join(sorted(member.basename for member in product.members)[:5])
    raise SceneError(
        product.path, expected="; or ".join(looked_for for _, _, looked_for in READERS),
        got=f"{len(product.members)} files ({names or 'none'})",
        todo="give one product's folder or archive",
    )  # fmt: skip


def verify(scene: xr.Dataset) -> None:
    """Compare the checksums of what was read of a scene, where its product has some.

    A zip's bands are unpacked as far as their rows are wanted, and a checksum is only known at a
    band's end: call this after the last pixel. Costs nothing if all rows were read.

    Raises:
        SceneError: A member is not what its checksum is of; what was read of it is not to be used.
    """
    if (source := scene.dn.encoding.get("source")) is not None:
        source.plain.verify()


@functools.lru_cache(maxsize=1000)
def _say_skipped(entry: Path) -> None:
    """Say so once: a build lists its source twice, before and after it waits for another."""
    logger.info("%s is no archive and no product folder: skipped", entry)


def find_scenes(source: str | Path) -> list[Path]:
    """Return the raw products at `source`, sorted: archives and product folders, by their names.

    An archive or a product folder is the only one itself. Nothing is opened, so a damaged archive
    is in the list and fails on its own when it is opened. Names that begin with a dot are skipped.

    Raises:
        FileNotFoundError: There is nothing at `source`.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"no raw products at {source}: no such file or folder")
    if source.is_file():
        return [source]
    entries = sorted(entry for entry in source.iterdir() if not entry.name.startswith("."))
    found = [entry for entry in entries if _is_product(entry)]
    if not found and any(_FILE.search(entry.name) for entry in entries):
        return [source]
    for entry in entries:
        if entry not in found:
            _say_skipped(entry)
    return found


def is_archive(name: str) -> bool:
    """Return whether a file of this name is taken for a product."""
    return bool(_ARCHIVE.search(name))


def _is_product(path: Path) -> bool:
    if path.is_dir():
        return any(_FILE.search(file.name) for file in path.rglob("*"))
    return is_archive(path.name)
