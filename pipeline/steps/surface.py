"""Radiance to reflectance at the surface."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from configs import ConfigError
from pipeline.steps.sunlight import Solar, record, reflectance_factor
from storage.schema import SceneError, SchemaError


@dataclass(frozen=True)
class Options:
    """What a recipe says of a method, see `surface`."""

    solar: Solar
    dark_pixels: int
    dark_reflectance: float


Method = Callable[[xr.Dataset, Options], tuple[xr.DataArray, dict[str, Any]]]
"""Scene with `radiance` (band, y, x), NaN where nothing was measured -> `reflectance` likewise [1],
lazy, and what is recorded of it."""


def surface(
    scene: xr.Dataset,
    *,
    method: Literal["dark_object", "isofit"] = "dark_object",
    solar: Solar = "tsis1",
    dark_pixels: int = 100,
    dark_reflectance: float = 0.01,
) -> xr.Dataset:
    """Turn `radiance` into `reflectance` (band, y, x) [1] float32 without the light of the air.

    `dark_object` takes the darkest ground of each band for ground of `dark_reflectance` and
    subtracts what it sends up beyond that, everywhere. The darkest radiance is the
    `dark_pixels`-th from below, as the very least ones are noise. It is found when the step is
    called: the scene is read once, chunk by chunk, and a few numbers a band are kept. The pixels
    stay lazy. What the air absorbs is not put back, so that reflectance stays near 0 in gas bands,
    and a scene without dark ground comes out too dark; the step records, per band, the dark
    object's reflectance before and after.

    `isofit` is a name without a method: ISOFIT needs a radiative transfer emulator and surface
    statistics of the user's own, so this project ships no adapter. Who has one puts it into
    `METHODS` from Python; a recipe names methods and never code.

    Args:
        scene: `radiance` [W m-2 sr-1 um-1] and `valid`, as left by `mask`; attrs `sun_elevation`
            [deg], `acquired`.
        method: `dark_object`, or `isofit` if an adapter is registered.
        solar: As in the step `reflectance`.
        dark_pixels: Which radiance from below is the dark object's [pixels].
        dark_reflectance: Of the dark object [1].

    Raises:
        ConfigError: `isofit` without ISOFIT or without an adapter for it.
        SchemaError: There is no radiance or mask, or the sun is not above the horizon.
        SceneError: Fewer than `dark_pixels` pixels hold a measurement.

    Source: Chavez 1988, doi:10.1016/0034-4257(88)90019-3 (dark object, here each band's own and not
        tied to a scattering law); Chavez 1996, Photogramm. Eng. Remote Sens. 62, 1025-1036 (a dark
        object of 1 %).
    """
    if "radiance" not in scene or "valid" not in scene:
        raise SchemaError("surface needs the steps radiance and mask before it, got none")
    if dark_pixels < 1 or not 0 <= dark_reflectance < 1:
        raise ValueError(
            "dark_pixels must be >= 1 and dark_reflectance in [0, 1), "
            f"got {dark_pixels} and {dark_reflectance}"
        )
    if method not in METHODS:
        raise ConfigError(_no_method(method))
    options = Options(solar, dark_pixels, dark_reflectance)
    values, effect = METHODS[method](scene, options)
    step = {"step": "surface", "method": method, **record(scene, solar),
            "dark_pixels": dark_pixels, "dark_reflectance": dark_reflectance, **effect}  # fmt: skip
    scene = scene.drop_vars("radiance").assign(reflectance=values.assign_attrs(units="1"))
    return scene.assign_attrs(steps=[*scene.attrs["steps"], step])


def dark_object(scene: xr.Dataset, options: Options) -> tuple[xr.DataArray, dict[str, Any]]:
    """Return reflectance less that of the air, and the dark object's before and after (band)."""
    factor = reflectance_factor(scene, options.solar)
    dark = darkest(scene.radiance.transpose("band", "y", "x").data, options.dark_pixels)
    if np.isinf(dark).all():
        raise SceneError(
            scene.attrs["scene_id"], expected=f"at least {options.dark_pixels} valid pixels",
            got="fewer in every band", todo="lower dark_pixels or use the step reflectance",
        )  # fmt: skip
    before = np.where(np.isinf(dark), np.nan, dark) * factor.values
    haze = np.maximum(before - options.dark_reflectance, 0)
    per_band = xr.DataArray(haze.astype("float32"), dims="band", coords={"band": scene.band})
    values = scene.radiance * factor - per_band
    return values, {"dark_object_before": _numbers(before),
                    "dark_object_after": _numbers(before - haze)}  # fmt: skip


def darkest(radiance: da.Array, number: int) -> NDArray[np.float64]:
    """Return the `number`-th value from below (band) of `radiance` (band, y, x), inf if fewer.

    Computes: reads each chunk once and keeps `number` values a band. NaN does not count.
    """

    def keep(values: NDArray[np.float32], axis: Any, keepdims: bool) -> NDArray[np.float32]:
        out = np.full((len(values), number, 1), np.inf, values.dtype)
        for band, image in zip(out[..., 0], values, strict=True):
            finite = image[~np.isnan(image)]
            if finite.size > number:
                finite = np.partition(finite, number - 1)[:number]
            band[: finite.size] = finite
        return out

    def last(values: NDArray[np.float32], axis: Any, keepdims: bool) -> NDArray[np.float32]:
        return keep(values, axis, keepdims).max(axis=(1, 2))

    found = da.reduction(
        radiance, keep, last, axis=(1, 2), combine=keep, dtype=radiance.dtype, split_every=8,
        meta=np.empty((0,), radiance.dtype),
    )  # fmt: skip
    values: NDArray[np.float64] = found.compute().astype("float64")
    return values


METHODS: dict[str, Method] = {"dark_object": dark_object}
"""By the name in a recipe. To use ISOFIT, put an adapter here, under `isofit`, before a build."""


def _no_method(method: str) -> str:
    others = "or choose the method dark_object, or the step reflectance (top of the atmosphere)"
    if importlib.util.find_spec("isofit") is None:
        return (
            f"surface: method {method} expected ISOFIT, got no package of that name; install it "
            f"(`pip install isofit`) with its data and put an adapter into "
            f"pipeline.steps.surface.METHODS, {others}"
        )
    return (
        f"surface: method {method} expected an adapter in pipeline.steps.surface.METHODS, got none "
        f"(ISOFIT itself is installed); put one there, {others}"
    )


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Return values that JSON can hold, to four decimals; None for NaN."""
    return [None if np.isnan(value) else round(float(value), 4) for value in values]
