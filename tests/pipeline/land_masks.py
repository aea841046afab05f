"""Land masks as GeoTIFFs."""

import rasterio
from rasterio.transform import from_bounds


def write_tif(path, value, bounds, crs="EPSG:4326", **options):
    """Write pixels (y, x) that fill bounds (west, south, east, north) of a CRS; return the path."""
    height, width = value.shape
    given = {"crs": crs, "transform": from_bounds(*bounds, width, height), **options}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=value.dtype, **given
    ) as file:
        file.write(value, 1)
    return path
