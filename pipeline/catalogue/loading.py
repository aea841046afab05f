"""Code that loads a version, as the card shows it; it runs from the card's folder."""

import json
import shlex

from pipeline.catalogue.card import Card

_PIXELS = """from storage.index import read_index
from storage.scenes import scene_dataset
from storage.store import open_version

group = open_version({quoted}, "{version}")
tiles = read_index(group)                                # one row a tile; pyarrow.Table
scene = scene_dataset(group, "{scene}")
pixels = scene.tiles[0].values / scene.attrs["scale"]    # (band, y, x), in {units}
valid = scene["valid"][0].values                         # (y, x)
"""
_INDEX = """import duckdb

print(duckdb.sql("select sensor, split, count(*) from 'index.parquet' group by all order by all"))
"""
_SHARDS = """hypersigma-data query "valid > 0.95 and split = 'train'" {store} --version {version}
hypersigma-data shards {store} shards --version {version}
"""


def snippets(card: Card, store: str) -> list[tuple[str, str, str]]:
    """Return what each does, its language and the code.

    Args:
        card: The version.
        store: The store's place as seen from the card's folder.
    """
    kept = [s for s in card.scenes.to_pylist() if s["tiles_kept"]] or card.scenes.to_pylist()
    facts = {
        "store": shlex.quote(store),
        "quoted": json.dumps(store),
        "version": card.version.tag,
        "scene": kept[0]["scene_id"],
        "units": "reflectance" if kept[0]["units"] == "1" else kept[0]["units"],
    }
    return [
        ("Pixels of exactly this version, in Python:", "python", _PIXELS.format(**facts)),
        ("The index alone, without this project:", "python", _INDEX),
        ("Tiles by a condition, and shards to train on:", "sh", _SHARDS.format(**facts)),
    ]
