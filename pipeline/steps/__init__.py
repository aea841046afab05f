"""Steps: each takes a scene Dataset and returns a new one, lazily."""

from collections.abc import Callable

import xarray as xr

from pipeline.steps.bands import bands
from pipeline.steps.masks import mask
from pipeline.steps.normalize import normalize
from pipeline.steps.product_reflectance import product_reflectance
from pipeline.steps.radiance import radiance
from pipeline.steps.reflectance import reflectance
from pipeline.steps.scores import scores
from pipeline.steps.surface import surface

STEPS: dict[str, Callable[..., xr.Dataset]] = {
    "bands": bands,
    "radiance": radiance,
    "mask": mask,
    "scores": scores,
    "reflectance": reflectance,
    "product_reflectance": product_reflectance,
    "surface": surface,
    "normalize": normalize,
}
"""By the name that a recipe gives them; `tile` comes last and is no step: it needs the split."""
