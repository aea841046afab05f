"""What a product's scene is called, from its name alone: to plan a build without opening scenes."""

import re
from pathlib import Path

_HYPERION = re.compile(r"(?i)(EO1H\d{16}\w{2})_(1T|1GST|1R)\b")
_AHSI = re.compile(r"\w+_AHSI_[EW]\d+\.\d+_[NS]\d+\.\d+_\d{8}_\d{6}_L1A?\d+")


def scene_id_of_name(path: Path) -> str | None:
    """Return the scene id that a product's file or folder name implies, None if it implies none.

    Hyperion: entity id and level, `EO1H1930242013205110KF_1T`. AHSI: the product's name, `p` for
    the decimal points.
    """
    if found := _HYPERION.match(path.name):
        return f"{found[1]}_{found[2].upper()}"
    if found := _AHSI.match(path.name):
        return found[0].replace(".", "p")
    return None
