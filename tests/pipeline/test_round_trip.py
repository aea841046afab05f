"""Synthetic product -> reader -> radiance -> reflectance is the truth, but for the rounding to DN.

The products are exposed without noise, stripes and smile, so that rounding is all that is lost. Per
band, with the gain g [W m-2 sr-1 um-1] and f = reflectance per radiance:

    |L - L_true| <= g / 2                      DN are whole numbers
                    + dg |DN| + db             gain and bias as the product's text rounds them
                    + n u M                    float32 arithmetic
    |rho - rho_true| <= f |L - L_true| + n u |rho| + r |rho|

u = 2^-24 is half the spacing of float32 numbers near 1, M the sum of the magnitudes that are added
up in a pixel, n = 32 above the number of roundings on the way: 13 products and sums over endmembers
and path, the gain's and the product's own, offset, factor. r: the product's text rounds wavelength
and width (dl, dw) as well, which moves the solar irradiance by at most |dE/dl| dl + |dE/dw| dw.
"""

from dataclasses import fields, replace
from functools import partial

import dask
import numpy as np
import pytest

from pipeline.readers import open_scene
from pipeline.steps.radiance import radiance
from pipeline.steps.reflectance import reflectance
from pipeline.synth import ahsi, hyperion, hyperion_l1r
from pipeline.synth.light import Bands, Signal, signal
from pipeline.synth.plan import FAMILIES, plan_scene
from pipeline.synth.products import WRITERS
from pipeline.synth.sensor import Quality
from pipeline.synth.world import make_world

SEED = 3
ROUNDINGS = 32 * 2.0**-24
TEXT = {
    # Half a unit of the last decimal written: gain and bias, centre [nm], width [nm]
    "gf5b": (0.5e-6, 0.5e-4, 0.5e-3),
    "gf5": (0.5e-6, 0.5e-6, 0.5e-6),
}


@pytest.fixture(params=FAMILIES)
def exposed(request, tmp_path, monkeypatch):
    """A product without noise, read, and its truth, in the bands that measure."""
    perfect = Quality(noise=(0, 0), stripes=(0, 0), blue_stripes=0)
    for module in (hyperion, hyperion_l1r, ahsi):
        monkeypatch.setattr(module, "QUALITY", perfect)
    monkeypatch.setattr(ahsi, "SHAPE", (96, 80))
    monkeypatch.setattr(hyperion_l1r, "SHAPE", (96, 256))
    monkeypatch.setattr(hyperion_l1r, "SMILE", (0.0, 0.0))
    family = request.param
    plan = plan_scene(FAMILIES.index(family), SEED)
    small = partial(hyperion.write_map_product, frame=hyperion.Frame((96, 80), (84, 60)))
    write = small if family in ("hyperion-l1t", "hyperion-l1gst") else WRITERS[family]
    path, truth = write(tmp_path, plan, make_world(SEED))
    live = np.flatnonzero(truth.bands.live)
    bands = Bands(**{f.name: getattr(truth.bands, f.name)[live] for f in fields(Bands)})
    sight = Signal(**{f.name: getattr(truth.sight, f.name)[..., live] for f in fields(Signal)})
    truth = replace(truth, bands=bands, sight=sight)
    return family, open_scene(path).isel(band=live), truth


def true_light(truth):
    """Radiance (band, y, x), and the sum of the magnitudes in it, in float64 from the parts."""
    sight = truth.sight
    light = truth.air.cosine * sight.irradiance * sight.transmittance
    spectra = (light * sight.reflectance).T
    ground = np.einsum("be,eyx->byx", spectra, truth.abundance.astype("float64"))
    return ground + sight.path[:, None, None], ground + abs(sight.path[:, None, None])


def measured(scene, truth, light):
    """Samples that hold light: not border, dead, flagged or beyond the range of DN."""
    kept = np.broadcast_to(truth.grid.valid, scene.dn.shape)
    if "flags" in scene:
        kept = kept & (scene.flags.values == 0)
    counts = (light - truth.bands.offset[:, None, None]) / truth.bands.gain[:, None, None]
    low, high = (-32768, 32767) if scene.attrs["sensor"] == "hyperion" else (1, 4095)
    return kept & (counts > low) & (counts < high)


def relative_irradiance_error(family, truth):
    """Largest relative error of the irradiance from the text's rounding (band)."""
    _, centre_step, width_step = TEXT.get(family, (0, 0, 0))
    bands, air = truth.bands, truth.air
    nominal = truth.sight.irradiance
    moved = abs(signal(air, bands.wavelength + 0.01, bands.fwhm).irradiance - nominal) / 0.01
    wider = abs(signal(air, bands.wavelength, bands.fwhm + 0.01).irradiance - nominal) / 0.01
    # A tenth more, for the curvature of the irradiance between.
    return 1.1 * (moved * centre_step + wider * width_step) / nominal


def test_reflectance_is_the_truth_within_half_a_dn(exposed):
    family, scene, truth = exposed
    lit = radiance(scene)
    with dask.config.set(scheduler="synchronous"):
        found_light, found = lit.radiance.values, reflectance(lit).reflectance.values
    light, magnitude = true_light(truth)
    assert found.shape == light.shape
    kept = measured(scene, truth, light)
    per_band = (slice(None), None, None)
    gain, offset = truth.bands.gain[per_band], truth.bands.offset[per_band]
    text = TEXT.get(family, (0.0,))[0]
    counts = abs((light - offset) / gain)
    bound = gain / 2 + text * (counts + 1) + ROUNDINGS * (magnitude + 2 * abs(offset))
    error = abs(found_light - light)
    assert kept.mean() > 0.4
    assert kept.any(axis=(1, 2)).all()
    assert (error[kept] <= bound[kept]).all()

    factor = 1 / (truth.air.cosine * truth.sight.irradiance)[per_band]
    relative = ROUNDINGS + relative_irradiance_error(family, truth)[per_band]
    expected = factor * light
    bound = factor * bound + relative * abs(expected)
    error = abs(found - expected)
    assert (error[kept] <= bound[kept]).all()
    # The bound is no wide one: the largest errors of a band come near to it.
    worst = np.where(kept, error / bound, 0).max(axis=(1, 2))
    assert np.median(worst) > 0.8
