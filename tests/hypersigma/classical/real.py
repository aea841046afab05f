"""Measured scenes, where they are."""

from pathlib import Path

_FOLDER = Path(__file__).parents[4] / "shared/data"
DATA = _FOLDER if _FOLDER.is_dir() else None
