"""What a product's scene is called, from its name alone: to plan a build without opening scenes."""

import re
from pathlib import Path

_ENTITY = re.compile(r"(?i)EO1H\d{13}[01]{3}[A-Z]\w")
_LEVEL = re.compile(r"(?i)(?:_[A-Z]\w\w_\d\d)?_(1T|1GST|1R)\b")
_AHSI = re.compile(r"\w+_AHSI_[EW]\d+\.\d+_[NS]\d+\.\d+_\d{8}_\d{6}_L1A?\d+")


def scene_id_of_name(path: Path) -> str | None:
    """Return the scene id that a product's file or folder name implies, None if it implies none.

    Hyperion: entity id and level, `EO1H1930242013205110KF_1T`. AHSI: the product's name, `p` for
    the decimal points.
    """
    entity = entity_id(path.name)
    if entity and (level := _LEVEL.match(path.name, len(entity))):
        return f"{entity}_{level[1].upper()}"
    if found := _AHSI.match(path.name):
        return found[0].replace(".", "p")
    return None


def entity_id(name: str) -> str | None:
    """Return the entity id that a Hyperion file's name begins with, without ground station.

    Its last letters may be small (`Kt`); only a name that is small altogether is made large.
    """
    found = _ENTITY.match(name)
    if found is None:
        return None
    return found[0] if found[0].startswith("EO1H") else found[0].upper()
