"""How stored values are to be scaled when they are read."""

from typing import Literal

import xarray as xr

from storage.schema import SchemaError


def normalize(
    scene: xr.Dataset, *, method: Literal["none", "scale"], scale: float = 1.0
) -> xr.Dataset:
    """Record in attrs `scale` that value = stored / scale; the pixels stay as they are.

    Args:
        scene: Any.
        method: `none`: value = stored. `scale`: divide by `scale` when read.
        scale: The divisor, 1 with `none`.

    Raises:
        SchemaError: A divisor for values that are not stored as integers.
        ValueError: The divisor is not positive, or given with `none`.
    """
    if not scale > 0 or (method == "none" and scale != 1):
        raise ValueError(f"scale must be positive, and 1 with method none, got {method}, {scale}")
    if scale != 1 and ("reflectance" in scene or "radiance" in scene):
        raise SchemaError(f"a scale is for integers, got {scale} for radiance or reflectance")
    step = {"step": "normalize", "method": method, "scale": float(scale)}
    return scene.assign_attrs(scale=float(scale), steps=[*scene.attrs["steps"], step])
