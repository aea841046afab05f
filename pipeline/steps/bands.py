"""Keep a named list of bands."""

import logging

import xarray as xr

from pipeline.selection import only_bands
from pipeline.sensors import band_list
from storage.schema import SceneError

logger = logging.getLogger(__name__)


def bands(scene: xr.Dataset, *, name: str) -> xr.Dataset:
    """Keep the bands of the list `name` of the scene's sensor, in the list's order; lazy.

    Args:
        scene: Any variables on `band`.
        name: `hyperglobal`, `calibrated` or another list of `pipeline.sensors.SENSORS`. One whose
            source nobody read (its `doubt`) is warned of, and the doubt recorded.

    Raises:
        KeyError: The sensor has no such list.
        SceneError: The scene lacks one of its bands.
    """
    wanted = band_list(scene.attrs["sensor"], name)
    missing = sorted(set(wanted.bands) - set(scene.band.values.tolist()))
    if missing:
        raise SceneError(
            scene.attrs["scene_id"], expected=f"the bands of {name}", got=f"no bands {missing}",
            todo="choose a list of bands that the scene has",
        )  # fmt: skip
    place = {band: i for i, band in enumerate(scene.band.values.tolist())}
    index = [place[band] for band in wanted.bands]
    kept = scene.isel(band=index).assign(dn=only_bands(scene.dn, index))
    step = {"step": "bands", "name": name, "version": wanted.version,
            "count": len(wanted.bands), "source": wanted.source}  # fmt: skip
    if wanted.doubt:
        logger.warning("band list %s of %s: %s", name, wanted.sensor, wanted.doubt)
        step["doubt"] = wanted.doubt
    return kept.assign_attrs(steps=[*scene.attrs["steps"], step])
