"""Scenes in sensor geometry, made of a few spectra, for the tests of steps on detectors."""

import dask.array as da
import numpy as np
import xarray as xr


def smooth(n, rows, cols, seed):
    """Random fields (n, y, x) of a few pixels' grain, mean 0 and standard deviation 1."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((n, rows, cols)))
    down, right = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(cols)
    fields = np.fft.irfft2(spectrum * np.exp(-40 * (down**2 + right**2)), s=(rows, cols))
    return (fields - fields.mean((1, 2), keepdims=True)) / fields.std((1, 2), keepdims=True)


def ground(bands=60, rows=192, cols=128, *, texture=0.2, seed=0):
    """Light (band, y, x), about 2000: four spectra mixed by fields of a relative `texture`."""
    places = np.linspace(0, 1, bands)
    spectra = np.stack([np.cos(np.pi * k * places) for k in range(4)])
    fields = texture * smooth(4, rows, cols, seed) / (1 + np.arange(4)[:, None, None])
    return 2000 * np.exp(np.tensordot(spectra.T, fields, 1))


def gains(bands, cols, spread, seed=1):
    return 1 + spread * np.random.default_rng(seed).standard_normal((bands, cols))


def noisy(light, relative=0.003, seed=2):
    return light * (1 + relative * np.random.default_rng(seed).standard_normal(light.shape))


def scene_of(dn, *, flags=None, vnir=None, chunk=64, **attrs):
    """A Hyperion-like scene of calibrated bands; the first `vnir` (half) are VNIR."""
    bands = len(dn)
    vnir = bands // 2 if vnir is None else vnir
    dims = ("band", "y", "x")
    variables = {"dn": (dims, da.from_array(dn, chunks=(-1, chunk, -1)))}
    if flags is not None:
        variables["flags"] = (dims, da.from_array(flags, chunks=(-1, chunk, -1)))
    nm = np.concatenate([926 - 10 * np.arange(vnir)[::-1], 923 + 10 * np.arange(bands - vnir)])
    coords = {
        "band": np.r_[58 - vnir : 58, 78 : 78 + bands - vnir],
        "wavelength": ("band", nm.astype(float)),
        "fwhm": ("band", np.full(bands, 11.0)),
        "detector": ("band", np.array(["VNIR"] * vnir + ["SWIR"] * (bands - vnir))),
        "gain": ("band", np.full(bands, 0.0125)),
        "offset": ("band", np.zeros(bands)),
    }
    base = {"sensor": "hyperion", "scene_id": "S", "nodata": 0, "fill": -32767, "steps": []}
    return xr.Dataset(variables, coords, {**base, **attrs})
