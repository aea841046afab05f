"""Radiance to reflectance at the top of the atmosphere."""

import xarray as xr

from pipeline.steps.sunlight import Solar, record, reflectance_factor
from storage.schema import SchemaError


def reflectance(scene: xr.Dataset, *, solar: Solar = "tsis1") -> xr.Dataset:
    """Turn `radiance` into `reflectance` (band, y, x) [1] float32, pi L d^2 / (E sin(elevation)).

    Lazy. NaN stays NaN; values above 1 (cloud, snow, glint) and below 0 (noise) are kept. The
    Lambertian surface and the one sun angle of the whole scene are assumed.

    Args:
        scene: `radiance` (band, y, x) [W m-2 sr-1 um-1]; attrs `sun_elevation` [deg], `acquired`.
        solar: The sun's irradiance E: `tsis1` (TSIS-1 HSRS v2) or `e490` (ASTM E-490-00a), each
            averaged with a Gaussian of the band's FWHM; or `usgs`, the table that the USGS
            published for Hyperion, to reproduce older work. That table is 0 in bands 235-242,
            which become NaN, and in band 37 (721.9 nm) it is 8 % below all other spectra, so that
            reflectance is 8 % too high there.

    Raises:
        SchemaError: There is no radiance, the sun is unknown or not above the horizon, or `usgs`
            is asked for another sensor.

    Source: Chander et al. 2009, doi:10.1016/j.rse.2009.01.007, eq. 2.
    """
    if "radiance" not in scene:
        raise SchemaError("reflectance needs the step radiance before it, got none")
    values = (scene.radiance * reflectance_factor(scene, solar)).assign_attrs(units="1")
    step = {"step": "reflectance", **record(scene, solar)}
    scene = scene.drop_vars("radiance").assign(reflectance=values)
    return scene.assign_attrs(steps=[*scene.attrs["steps"], step])
