"""Steps: each takes a scene Dataset and returns a new one, lazily."""

from collections.abc import Callable

import xarray as xr

from pipeline.steps.bands import bands
from pipeline.steps.coregister import coregister
from pipeline.steps.destripe import destripe
from pipeline.steps.detectors import detectors
from pipeline.steps.masks import mask
from pipeline.steps.normalize import normalize
from pipeline.steps.product_reflectance import product_reflectance
from pipeline.steps.radiance import radiance
from pipeline.steps.reflectance import reflectance
from pipeline.steps.scores import scores
from pipeline.steps.smile import smile
from pipeline.steps.surface import surface

STEPS: dict[str, Callable[..., xr.Dataset]] = {
    "bands": bands,
    "detectors": detectors,
    "destripe": destripe,
    "coregister": coregister,
    "smile": smile,
    "radiance": radiance,
    "mask": mask,
    "scores": scores,
    "reflectance": reflectance,
    "product_reflectance": product_reflectance,
    "surface": surface,
    "normalize": normalize,
}
"""By the name that a recipe gives them; `tile` comes last and is no step: it needs the split."""
