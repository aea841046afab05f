"""Small scenes made in memory, in place of raw products."""

import dask.array as da
import numpy as np
import xarray as xr

BANDS = 12


def small_scene(scene_id: str, *, rows: int = 128, cols: int = 192, seed: int = 0) -> xr.Dataset:
    """Return a scene as a reader would: `dn` (band, y, x) int16, lazy, nothing invalid."""
    rng = np.random.default_rng(seed)
    dn = rng.integers(100, 4000, (BANDS, rows, cols), dtype=np.int16)
    wavelength = np.linspace(450, 900, BANDS)
    return xr.Dataset(
        {"dn": (("band", "y", "x"), da.from_array(dn, chunks=(BANDS, 64, cols)))},
        coords={
            "band": np.arange(8, 8 + BANDS),
            "wavelength": ("band", wavelength, {"units": "nm"}),
            "fwhm": ("band", np.full(BANDS, 10.0), {"units": "nm"}),
            "detector": ("band", np.full(BANDS, "VNIR")),
            "gain": ("band", np.full(BANDS, 1 / 40)),
            "offset": ("band", np.zeros(BANDS)),
        },
        attrs={
            "sensor": "hyperion",
            "platform": "EO1",
            "scene_id": scene_id,
            "level": "L1T",
            "acquired": "2013-07-24T09:41:20Z",
            "sun_elevation": 58.3,
            "sun_azimuth": 151.2,
            "view_zenith": 2.1,
            "nodata": 0,
            "crs": "EPSG:32633",
            "transform": [30.0, 0.0, 366000.0, 0.0, -30.0, 5809000.0],
            "steps": [],
            "sources": [{"name": f"{scene_id}.ZIP", "bytes": 1, "sha256": "0" * 64}],
        },
    )
