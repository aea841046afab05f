from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.catalogue import card
from storage.schema import FOOTPRINT_COORDS
from tests.storage.test_export import dated
from tests.storage.tiles import build, make_store


@pytest.fixture
def location(tmp_path):
    """A store of two versions: two sensors, a scene of which nothing was kept, tile outlines."""
    place = tmp_path / "a store"
    repo = make_store(place)
    build(repo, outlined("s1"), dated("s3", count=0))
    build(repo, outlined("s2", sensor="ahsi", count=8))
    return place


def outlined(scene_id, **changes):
    """Return tiles of 1.92 km beside each other, all with a place, in map geometry."""
    tiles = dated(scene_id, **changes)
    count = tiles.sizes["tile"]
    sides = dict(zip(FOOTPRINT_COORDS, (960, 0, 0, -960), strict=True))
    return tiles.assign_coords(
        lon=("tile", 7 + tiles.col.values * 30 / 78e3),
        lat=("tile", 45 - tiles.row.values * 30 / 111e3),
        **{name: ("tile", np.full(count, side, "f4")) for name, side in sides.items()},
    ).assign_attrs(
        crs="EPSG:32632",
        transform=[30.0, 0.0, 342000.0, 0.0, -30.0, 4984000.0],
        shape=[256, 256],
        sun_azimuth=-160.0,
    )


@pytest.fixture
def no_statistics(monkeypatch):
    monkeypatch.setattr(card, "read_statistics", lambda group, **_: {})


@pytest.fixture
def some_statistics(monkeypatch):
    """Statistics of two sensors, one of which has no tile in train."""

    def read(group, *, split, probabilities):
        wavelength = np.array([400.0, 410, 420, 1000, 1010, 1400])
        levels = np.array(probabilities)[:, None] * wavelength / 1000
        count = np.full(6, 0 if split == "train" else 640)
        found = SimpleNamespace(
            split=split, units="1", band=np.arange(1, 7), wavelength=wavelength, count=count,
            mean=levels[2], std=levels[1], quantiles=levels,
        )  # fmt: skip
        trained = SimpleNamespace(**vars(found) | {"count": np.full(6, 320)})
        return {"hyperion": trained, "ahsi": found}

    monkeypatch.setattr(card, "read_statistics", read)
