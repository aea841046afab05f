"""Terms of the sensors' products, as far as their providers state them."""

from dataclasses import dataclass

NOT_STATED = "not stated by the provider"


@dataclass(frozen=True)
class Licence:
    """Under which terms a sensor's products come, and where that was read."""

    provider: str
    terms: str
    url: str = ""
    """Of the terms; empty where none were found."""


LICENCES = {
    "hyperion": Licence(
        "U.S. Geological Survey (EROS archive)",
        "Public domain; a scene downloaded from the USGS can be redistributed as desired.",
        # Read in Earth Engine's catalogue, section Terms of Use.
        "https://developers.google.com/earth-engine/datasets/catalog/EO1_HYPERION#terms-of-use",
    ),
}
"""By sensor; of the others no terms were found that hold for every product."""


def licence(sensor: str) -> Licence:
    """Return a sensor's terms, or that they are not stated."""
    return LICENCES.get(sensor, Licence(NOT_STATED, f"Terms {NOT_STATED}."))
