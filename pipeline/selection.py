"""Taking bands of a scene's `dn` without reading the others."""

import xarray as xr


def only_bands(dn: xr.DataArray, index: list[int]) -> xr.DataArray:
    """Return some bands (0-based) of `dn`, the others not even read where that can be.

    Dask by itself reads all bands of a chunk and then drops the others.
    """
    kept = dn.isel(band=index)
    source = dn.encoding.get("source")
    if source is None or dn.data.name != dn.encoding["source_name"]:
        return kept
    taken = kept.copy(data=source.take(index).lazy())
    taken.encoding = {}
    return taken
