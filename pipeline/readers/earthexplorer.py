"""EarthExplorer's description of a Hyperion scene (`eo1_hyp_pub_*`, XML or CSV).

An L1R product does not say where the sun was; the description, exported beside it, does.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.readers import metadata
from pipeline.readers.listing import TEXT_LIMIT, Member
from pipeline.readers.product import Product

NAME = r"eo1_hyp_pub_.*\.(xml|csv)"
_KEYS = {
    "sunelevation": "SUN_ELEVATION", "sunazimuth": "SUN_AZIMUTH",
    "lookangle": "SENSOR_LOOK_ANGLE", "scenestarttime": "START_TIME",
}  # fmt: skip
_LIMITS = {"SUN_ELEVATION": 90.0, "SUN_AZIMUTH": 360.0, "SENSOR_LOOK_ANGLE": 90.0}


def description(product: Product, entity: str) -> tuple[dict[str, str], list[Member], str]:
    """Return what EarthExplorer says of a scene, under an MTL's names, and where it does.

    Looks in the product, then beside it; a description of another scene is none.

    Returns:
        Values; the product's members that were read; the file's name, empty if there is none.

    Raises:
        SceneError: A description of this scene is damaged, or an angle is out of range.
    """
    for name, member, content in _candidates(product, entity):
        for row in _rows(name, content):
            if not row.get("entityid", entity).upper().startswith(entity.upper()):
                continue
            values = {key: row[word] for word, key in _KEYS.items() if row.get(word)}
            for key, high in _LIMITS.items():
                metadata.angle(values, key, name, low=-high, high=high)
            return values, [member] if member else [], name
    return {}, [], ""


def _candidates(product: Product, entity: str) -> Iterator[tuple[str, Member | None, bytes]]:
    for member in product.find(NAME):
        yield product.where(member), member, product.read(member)
    wanted = re.compile(NAME, re.IGNORECASE)
    for path in sorted(product.path.parent.iterdir()):
        # An XML is of the scene that its name has; a CSV can be a table of many.
        of_scene = entity.upper() in path.name.upper() or path.suffix.lower() == ".csv"
        if wanted.fullmatch(path.name) and of_scene and path.is_file():
            with path.open("rb") as file:
                yield str(path), None, file.read(16 * TEXT_LIMIT)


def _rows(name: str, content: bytes) -> Iterator[dict[str, str]]:
    if Path(name).suffix.lower() == ".xml":
        yield _flat(metadata.parse_xml(content, where=name).iter())
        return
    text = content.decode("utf-8-sig", errors="replace").replace("\0", "")
    lines = csv.reader(io.StringIO(text))
    try:
        head = [_word(cell) for cell in next(lines, [])]
        for cells in lines:
            yield dict(zip(head, map(str.strip, cells), strict=False))
    except csv.Error as error:
        raise metadata.wrong(name, "a CSV table", f"{error}") from error


def _flat(elements: Iterable[Element]) -> dict[str, str]:
    """Return texts by element: by its `name` where it has one, as its own text or a child's."""
    found: dict[str, str] = {}
    for element in elements:
        texts = [element.text, *(child.text for child in element)]
        text = next((t.strip() for t in texts if t and t.strip()), "")
        if text:
            found.setdefault(_word(element.get("name") or element.tag.rpartition("}")[2]), text)
    return found


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
