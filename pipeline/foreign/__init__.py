"""Tiles that somebody else cut, made shards of ours: `.mat` and `.npy` files, WebDataset tars."""

from pipeline.foreign.importing import ImportOptions, import_tiles
from pipeline.foreign.plan import Naming

__all__ = ["ImportOptions", "Naming", "import_tiles"]
