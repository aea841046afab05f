"""What a pixel shows besides ground: cloud, cirrus, snow, water, shadow, saturation."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.sensors import SENSORS, band_list
from pipeline.steps.geometry import delivered
from pipeline.steps.sunlight import SOLAR, Solar, reflectance_factor
from storage.schema import SchemaError

type Bools = NDArray[np.bool_]
type Bands = Mapping[str, NDArray[np.float32]]
"""Reflectance at the top of the atmosphere (y, x) [1] by the name of the band."""
type Limits = Mapping[str, float]

NOMINAL = {
    "blue": 482.0, "green": 561.0, "red": 655.0, "nir": 865.0, "swir1": 1609.0, "swir2": 2201.0,
    "cirrus": 1373.0,
}  # fmt: skip
"""Wavelengths that the rules were made for [nm]: the middles of Landsat 8 OLI's bands 2-7 and 9."""


def scores(
    scene: xr.Dataset,
    *,
    solar: Solar = "tsis1",
    tolerance: float = 15.0,
    cloud_red: float = 0.08,
    cloud_ndsi: float = 0.7,
    cloud_vegetation: float = 2.0,
    cloud_soil: float = 1.0,
    cloud_swir: float = 0.03,
    cloud_whiteness: float = 0.7,
    cloud_hot: float = 0.08,
    cirrus: float = 0.01,
    snow_ndsi: float = 0.4,
    snow_nir: float = 0.11,
    snow_green: float = 0.1,
    water_ndwi: float = 0.0,
    water_nir: float = 0.11,
    shadow: float = 0.08,
) -> xr.Dataset:
    """Add `cloud`, `cirrus`, `snow`, `water`, `shadow`, `saturated` (y, x) bool; lazy.

    Each rule looks at the reflectance at the top of the atmosphere in a few bands, made from `dn`:
    the kept, calibrated bands with a positive gain that are nearest to `NOMINAL`. A mask whose
    bands are not there is not made, and the step records why. Of a product that is surface
    reflectance (attrs `quantity`) that is taken as it is. The names of those made are in attrs
    `masks`. A mask is False where the pixel is not valid or one of its samples is dead.

    Rules on single pixels confuse: bright white rock, sand and roofs with cloud; thin cloud over
    water with water; dark rock, burnt ground and dense conifers with shadow; shadow under much haze
    with water. Two masks may hold at once. In very dry air or on high mountains the ground shines
    through at 1.38 um and looks like cirrus.

    Args:
        scene: `dn`, `dead` (band, y, x), `valid` (y, x), and `flags` where the product has them.
        solar: As in the step `reflectance`.
        tolerance: Largest distance of a band from its nominal wavelength [nm].
        cloud_red: Cloud is brighter at 0.66 um [1].
        cloud_ndsi: Cloud has a smaller snow index [1].
        cloud_vegetation: Cloud has a smaller ratio of 0.87 to 0.66 um [1].
        cloud_soil: Cloud has a larger ratio of 0.87 to 1.61 um [1]. These four: filters 1, 2, 6 and
            8 of ACCA, Irish et al. 2006, doi:10.14358/PERS.72.10.1179.
        cloud_swir: Cloud is brighter at 2.2 um [1].
        cloud_whiteness: Cloud differs less in the visible bands, against their mean [1].
        cloud_hot: Cloud has a larger blue - red / 2 [1]. These three: Zhu & Woodcock 2012,
            doi:10.1016/j.rse.2011.10.028, eq. 1 to 3. Both algorithms also look at temperature,
            which these sensors do not measure: all seven must hold here.
        cirrus: Cirrus is brighter at 1.38 um [1]; Zhu et al. 2015, doi:10.1016/j.rse.2014.12.014.
        snow_ndsi: Snow has a larger snow index (green - 1.61 um) / (green + 1.61 um) [1]; with
            `snow_nir`: Hall et al. 1995, doi:10.1016/0034-4257(95)00137-P.
        snow_nir: Snow is brighter at 0.87 um; water is not [1].
        snow_green: Snow is brighter at 0.56 um [1]; Klein et al. 1998, Hydrological Processes 12,
            1723-1744.
        water_ndwi: Water has a larger water index, of green against 0.87 um (McFeeters 1996,
            doi:10.1080/01431169608948714) and, if that band is there, also against 1.61 um (Xu
            2006, doi:10.1080/01431160600589179) [1].
        water_nir: Water is darker at 0.87 um [1]; Zhu & Woodcock 2012, eq. 5.
        shadow: Shadow, and not water, has a smaller mean of 0.87 and 1.61 um [1]; the index is that
            of Zhai et al. 2018, doi:10.1016/j.isprsjprs.2018.07.006, which takes the limit from
            each scene's own statistics; this one was chosen here: half of what the darkest sunlit
            vegetation of the USGS library sends up, and more than a shaded bright soil does.

    `saturated`: a calibrated band is flagged as saturated (Hyperion's code 1) or, in a product
    without flags, has a delivered DN of at least the sensor's `ceiling`. Resampling can hide it.

    Raises:
        SchemaError: `mask` did not come before, or a table for another sensor was asked for.
    """
    if "valid" not in scene or "dn" not in scene:
        raise SchemaError("scores needs `dn` and the step mask before it, got a scene without")
    limits = {
        "cloud_red": cloud_red, "cloud_ndsi": cloud_ndsi, "cloud_vegetation": cloud_vegetation,
        "cloud_soil": cloud_soil, "cloud_swir": cloud_swir, "cloud_whiteness": cloud_whiteness,
        "cloud_hot": cloud_hot, "cirrus": cirrus, "snow_ndsi": snow_ndsi, "snow_nir": snow_nir,
        "snow_green": snow_green, "water_ndwi": water_ndwi, "water_nir": water_nir,
        "shadow": shadow,
    }  # fmt: skip
    usable = _usable(scene)
    chosen = _choose(scene, usable, tolerance)
    unavailable = _unavailable(scene, chosen, tolerance)
    masks = _from_reflectance(scene, solar, chosen, limits, without=set(unavailable))
    if (saturated := _saturated(scene, usable)) is not None:
        masks["saturated"] = saturated
    else:
        sensor = scene.attrs["sensor"]
        unavailable["saturated"] = f"no flags, and no DN is known at which {sensor} saturates"
    numbers = {name: int(scene.band.values[place]) for name, place in chosen.items()}
    step = {"step": "scores", "solar": solar, "solar_source": SOLAR[solar], "tolerance": tolerance,
            **limits, "bands": numbers, "masks": list(masks), "unavailable": unavailable,
            "saturated_from": "flags" if "flags" in scene else "dn"}  # fmt: skip
    named = [*scene.attrs.get("masks", []), *masks]
    scene = scene.assign({name: mask & scene.valid for name, mask in masks.items()})
    return scene.assign_attrs(masks=named, steps=[*scene.attrs["steps"], step])


def _cloud(toa: Bands, at: Limits) -> Bools:
    visible = np.stack([toa["blue"], toa["green"], toa["red"]])
    mean = visible.mean(axis=0)
    found: Bools = (
        (toa["red"] > at["cloud_red"])
        & (_index(toa["green"], toa["swir1"]) < at["cloud_ndsi"])
        & (_ratio(toa["nir"], toa["red"]) < at["cloud_vegetation"])
        & (_ratio(toa["nir"], toa["swir1"]) > at["cloud_soil"])
        & (toa["swir2"] > at["cloud_swir"])
        & (_ratio(abs(visible - mean).sum(axis=0), mean) < at["cloud_whiteness"])
        & (toa["blue"] - 0.5 * toa["red"] > at["cloud_hot"])
    )
    return found


def _cirrus(toa: Bands, at: Limits) -> Bools:
    return toa["cirrus"] > at["cirrus"]


def _snow(toa: Bands, at: Limits) -> Bools:
    bright = (toa["nir"] > at["snow_nir"]) & (toa["green"] > at["snow_green"])
    found: Bools = bright & (_index(toa["green"], toa["swir1"]) > at["snow_ndsi"])
    return found


def _water(toa: Bands, at: Limits) -> Bools:
    found = (_index(toa["green"], toa["nir"]) > at["water_ndwi"]) & (toa["nir"] < at["water_nir"])
    if "swir1" in toa:
        found &= _index(toa["green"], toa["swir1"]) > at["water_ndwi"]
    return found


def _shadow(toa: Bands, at: Limits) -> Bools:
    return (0.5 * (toa["nir"] + toa["swir1"]) < at["shadow"]) & ~_water(toa, at)


RULES: dict[str, tuple[tuple[str, ...], Callable[[Bands, Limits], Bools]]] = {
    "cloud": (("blue", "green", "red", "nir", "swir1", "swir2"), _cloud),
    "cirrus": (("cirrus",), _cirrus),
    "snow": (("green", "nir", "swir1"), _snow),
    "water": (("green", "nir"), _water),
    "shadow": (("green", "nir", "swir1"), _shadow),
}
"""Each mask with the bands that it cannot do without."""


def _index(one: NDArray[np.float32], two: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the normalised difference (one - two) / (one + two); NaN where both are dark."""
    return _ratio(one - two, one + two)


def _ratio(one: NDArray[np.float32], two: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one / two, NaN where two is not positive: dark, with noise below 0."""
    return np.divide(one, two, out=np.full_like(one, np.nan), where=two > 0)


def _usable(scene: xr.Dataset) -> Bools:
    """Return which bands (band) are calibrated and have a positive gain."""
    calibrated = band_list(scene.attrs["sensor"], "calibrated").bands
    usable: Bools = (scene.band.isin(calibrated) & (scene.gain > 0)).values
    return usable


def _choose(scene: xr.Dataset, usable: Bools, tolerance: float) -> dict[str, int]:
    """Return the place in `scene` of each nominal band that has one near enough."""
    chosen = {}
    for name, nominal in NOMINAL.items():
        away = np.where(usable, abs(scene.wavelength.values - nominal), np.inf)
        if away.min() <= tolerance:
            chosen[name] = int(away.argmin())
    return chosen


def _unavailable(scene: xr.Dataset, chosen: Mapping[str, int], tolerance: float) -> dict[str, str]:
    """Return the masks that cannot be made from reflectance, and why."""
    elevation = scene.attrs["sun_elevation"]
    if not _is_reflectance(scene) and not 0 < elevation <= 90:
        return dict.fromkeys(RULES, f"sun_elevation is {elevation}")
    if (factor := scene.attrs.get("scale_factor", 1)) != 1:
        return dict.fromkeys(RULES, f"ScaleFactor is {factor}, whose meaning is not documented")
    reasons = {}
    for name, (needed, _) in RULES.items():
        missing = [f"{NOMINAL[band]:g} nm" for band in needed if band not in chosen]
        if missing:
            reasons[name] = f"no usable band within {tolerance:g} nm of {', '.join(missing)}"
    if _is_reflectance(scene):
        reasons["cirrus"] = "surface reflectance says nothing of the air"
    return reasons


def _is_reflectance(scene: xr.Dataset) -> bool:
    """Say whether the product's integers are surface reflectance already."""
    return bool(scene.attrs.get("quantity") == "surface reflectance")


def _from_reflectance(
    scene: xr.Dataset, solar: Solar, chosen: Mapping[str, int], limits: Limits, *, without: set[str]
) -> dict[str, xr.DataArray]:
    """Return the masks (y, x) that look at reflectance, lazily, all from one block function."""
    rules = {name: rule for name, (_, rule) in RULES.items() if name not in without}
    if not rules:
        return {}
    some = scene.isel(band=list(chosen.values()))
    measured = ~some.dead
    if _is_reflectance(scene):
        factor = xr.ones_like(some.gain, dtype="float32")
        measured &= some.dn != scene.attrs["nodata"]
    else:
        factor = reflectance_factor(some, solar)
    gain, offset = some.gain.astype("float32") * factor, some.offset.astype("float32") * factor
    toa = (some.dn.astype("float32") * gain + offset).where(measured)
    data = toa.transpose("band", "y", "x").data.rechunk({0: -1})
    judge = partial(_judge, names=tuple(chosen), rules=rules, limits=limits)
    found = data.map_blocks(judge, dtype=bool, chunks=((len(rules),), *data.chunks[1:]))
    return {name: xr.DataArray(found[i], dims=("y", "x")) for i, name in enumerate(rules)}


def _judge(
    toa: NDArray[np.float32],
    *,
    names: tuple[str, ...],
    rules: Mapping[str, Callable[[Bands, Limits], Bools]],
    limits: Limits,
) -> Bools:
    """Return masks (mask, y, x) from reflectance (band, y, x) in bands `names`."""
    bands = dict(zip(names, toa, strict=True))
    return np.stack([rule(bands, limits) for rule in rules.values()])


def _saturated(scene: xr.Dataset, usable: Bools) -> xr.DataArray | None:
    """Return whether any usable band of a pixel is saturated (y, x); None where nothing tells."""
    some = scene.isel(band=np.flatnonzero(usable))
    if "flags" in scene:
        return (some["flags"] == 1).any("band")
    ceiling = SENSORS[scene.attrs["sensor"]].ceiling
    return None if ceiling is None else (delivered(some) >= ceiling).any("band")
