"""Cloud-Optimized GeoTIFFs of maps of any size.

Shape letters: K bands of a map, n rows, W columns.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.windows import Window

STRIP_BYTES = 32 * 2**20
"""Of a map that are held at once, about."""
BLOCK = 256
GDAL = {"GDAL_CACHEMAX": 64 * 2**20}
"""By default its cache takes 5 % of the machine's memory, whatever else is to fit in."""


@dataclass(frozen=True)
class Layer:
    """What a GeoTIFF holds."""

    dtype: str
    nodata: float
    names: Sequence[str]
    """Of its bands."""
    colours: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)
    """Of its values, of a map of classes."""
    tags: Mapping[str, str] = field(default_factory=dict)
    band_tags: Sequence[Mapping[str, str]] = ()
    """Of its bands, from the first on."""


def write_cog(
    path: Path,
    read: Callable[[int, int], NDArray[Any]],
    *,
    height: int,
    width: int,
    placed: Mapping[str, Any],
    layer: Layer,
) -> None:
    """Write a map, whole or not at all; the same numbers give the same bytes.

    Args:
        path: Of the file.
        read: From a first row and the one behind the last to (K, n, W).
        height: Rows.
        width: Columns.
        placed: Georeference, as keywords for `rasterio.open`.
        layer: What it holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain, cloud = (path.with_name(f".{path.name}.{part}") for part in ("plain", "cloud"))
    row_bytes = np.dtype(layer.dtype).itemsize * len(layer.names) * width
    strip = min(max(STRIP_BYTES // row_bytes, 1), BLOCK, height)
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": len(layer.names),
        "dtype": layer.dtype, "nodata": layer.nodata, "tiled": False, "blockysize": strip,
        "interleave": "band", "bigtiff": "if_safer",
    }  # fmt: skip
    if layer.colours:
        profile["photometric"] = "palette"
    try:
        with warnings.catch_warnings(), rasterio.Env(**GDAL):
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(plain, "w", **profile, **placed) as target:
                for first in range(0, height, strip):
                    last = min(first + strip, height)
                    target.write(read(first, last), window=Window(0, first, width, last - first))
                if layer.colours:
                    target.write_colormap(1, dict(layer.colours))
                for number, name in enumerate(layer.names, start=1):
                    target.set_band_description(number, name)
                target.update_tags(**layer.tags)
                for number, tags in enumerate(layer.band_tags, start=1):
                    target.update_tags(number, **tags)
            smooth = "nearest" if layer.colours else "average"
            rasterio.shutil.copy(
                plain, cloud, driver="COG", compress="deflate", blocksize=BLOCK,
                overview_resampling=smooth, bigtiff="if_safer",
                predictor="no" if layer.colours else "yes",
            )  # fmt: skip
        cloud.replace(path)
    finally:
        for left in (plain, cloud):
            left.unlink(missing_ok=True)
            left.with_name(left.name + ".aux.xml").unlink(missing_ok=True)


def thinned(read: Callable[[int, int], NDArray[Any]], height: int, step: int) -> NDArray[Any]:
    """Return every `step`-th row and column of a map (K, n, W)."""
    rows = [read(row, row + 1)[:, :, ::step] for row in range(0, height, step)]
    return np.concatenate(rows, axis=1)
