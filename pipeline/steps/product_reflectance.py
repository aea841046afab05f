"""Integers of a product that is reflectance already, as reflectance."""

import xarray as xr

from storage.schema import SchemaError


def product_reflectance(scene: xr.Dataset) -> xr.Dataset:
    """Add `reflectance` (band, y, x) [1] float32 = gain * dn + offset; lazy.

    For products that were corrected by their supplier (attrs `quantity` "surface reflectance").
    NaN where the pixel is not valid, the sample dead, or `dn` is `nodata`, as in bands that the
    supplier left empty. Values below 0 and above 1 are kept.

    Raises:
        SchemaError: The product is no reflectance, or `mask` has not come before.
    """
    name = scene.attrs["scene_id"]
    quantity = scene.attrs.get("quantity", "radiance")
    if quantity != "surface reflectance":
        raise SchemaError(
            f"{name}: product_reflectance needs a product of surface reflectance, got {quantity}; "
            "use the steps radiance and reflectance"
        )
    if "valid" not in scene:
        raise SchemaError(f"{name}: product_reflectance needs the step mask before it, got none")
    gain, offset = scene.gain.astype("float32"), scene.offset.astype("float32")
    kept = scene.valid & ~scene.dead & (scene.dn != scene.attrs["nodata"])
    values = (scene.dn.astype("float32") * gain + offset).where(kept)
    values = values.transpose("band", "y", "x").assign_attrs(units="1")
    step = {"step": "product_reflectance", "quantity": quantity}
    return scene.assign(reflectance=values).assign_attrs(steps=[*scene.attrs["steps"], step])
