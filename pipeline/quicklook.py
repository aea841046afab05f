"""A glance at the scenes of a version: their first tiles, side by side."""

import io
from collections.abc import Sequence

import numpy as np
import zarr
from numpy.typing import NDArray

from storage import store
from storage.location import Location
from storage.nodes import array, subgroup

_TILES = 8
_COLOURS = (650.0, 550.0, 470.0)
"""Red, green, blue [nm]."""
_ZOOM = 2
_BORDER = 4


def quicklook(location: Location, version: str, scenes: Sequence[str]) -> bytes | None:
    """Return a PNG of the first tile of each of the first eight scenes, in about true colours.

    None if no scene kept a tile. Reads one tile a scene.
    """
    group = store.open_version(location, version)
    pictures: list[NDArray[np.uint8]] = []
    for name in scenes:
        picture = _first_tile(subgroup(group, f"scenes/{name}"))
        if picture is not None:
            pictures.append(np.pad(picture, ((0, 0), (0, _BORDER), (0, 0)), constant_values=255))
        if len(pictures) == _TILES:
            break
    if not pictures:
        return None
    # Matplotlib takes a second to load: not before it is needed.
    from matplotlib.image import imsave

    row = np.concatenate(pictures, axis=1)[:, :-_BORDER]
    buffer = io.BytesIO()
    imsave(buffer, row.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1), format="png")
    return buffer.getvalue()


def _first_tile(scene: zarr.Group) -> NDArray[np.uint8] | None:
    """Return (y, x, 3), each band stretched to its own 2-98 %; white where nothing was measured."""
    tiles = array(scene, "tiles")
    if not tiles.shape[0]:
        return None
    wavelength = np.asarray(array(scene, "wavelength")[:])
    valid = np.asarray(array(scene, "valid")[0])
    picture = np.full((*valid.shape, 3), 255, "uint8")
    pixels = np.asarray(tiles[0])
    for place, nm in enumerate(_COLOURS):
        band = pixels[int(np.abs(wavelength - nm).argmin())].astype("float32")
        good = valid & np.isfinite(band)
        if good.any():
            low, high = np.percentile(band[good], (2, 98))
            scaled = (band[good] - low) / max(high - low, np.finfo("float32").tiny)
            picture[good, place] = scaled.clip(0, 1) * 255
    return picture
