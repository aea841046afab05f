"""Integers as delivered to at-sensor radiance."""

import numpy as np
import xarray as xr

from storage.schema import SchemaError


def radiance(scene: xr.Dataset) -> xr.Dataset:
    """Add `radiance` (band, y, x) [W m-2 sr-1 um-1] float32 = gain * dn + offset; lazy.

    NaN in bands whose gain is not positive (their calibration has failed) and where `dn` is the
    scene's `fill`. `dn` stays, as `mask` looks at it; `mask` puts NaN where `dn` is nodata.

    Raises:
        SchemaError: `mask` came first, the product is no radiance (attrs `quantity`), or scales it
            in a way unknown.
    """
    if "valid" in scene:
        raise SchemaError("radiance must come before mask, which puts NaN into it; got it after")
    if (quantity := scene.attrs.get("quantity", "radiance")) != "radiance":
        raise SchemaError(
            f"{scene.attrs['scene_id']}: dn must be radiance, got {quantity}, from which radiance "
            "cannot be had back; use the step product_reflectance, after mask, instead"
        )
    if (factor := scene.attrs.get("scale_factor", 1)) != 1:
        raise SchemaError(
            f"{scene.attrs['scene_id']}: ScaleFactor must be 1, got {factor}, whose meaning is not "
            "documented; use a recipe without radiance"
        )
    gain, offset = scene.gain.astype("float32"), scene.offset.astype("float32")
    usable = scene.gain > 0
    values = scene.dn.astype("float32") * gain.where(usable) + offset
    if "fill" in scene.attrs:
        values = values.where(scene.dn != np.int16(scene.attrs["fill"]))
    dropped = scene.band.values[~usable.values].tolist()
    step = {"step": "radiance", "bands_without_gain": dropped}
    values = values.assign_attrs(units="W m-2 sr-1 um-1")
    return scene.assign(radiance=values).assign_attrs(steps=[*scene.attrs["steps"], step])
