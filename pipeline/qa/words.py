"""What a recipe's steps recorded, in words and units."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.inspect import ranges
from pipeline.steps import STEPS

UNITS = {
    "min_rows": "rows", "block_rows": "rows", "max_apart": "nm", "tolerance": "nm",
    "max_nm": "nm", "shift": "pixels (y, x)", "applied": "pixels (y, x)",
    "uncertainty": "pixels", "size": "pixels", "stride": "pixels", "earth_sun_distance": "au",
    "block_km": "km", "guard_m": "m", "threshold": "standard deviations",
    "min_peak": "standard deviations",
}  # fmt: skip
_PAIRS = ("stripe_index", "mean_stripe_index", "max_nm", "correlation")
"""Measured before and after."""
_BANDS = ("bands_without_gain", "bands_without_irradiance")
_NAMES = {
    "max_nm": "largest deviation", "block_km": "blocks of", "guard_m": "guard",
    "too_large": "columns too far off to correct", "at_range": "corrected columns at the range",
    "columns": "columns corrected (over all bands)", "boundaries": "boundaries of the ground",
    "bands_judged": "bands judged", "dead_from": "dead samples from",
    "found": "bad detectors", "not_applied": "rules not applied",
}  # fmt: skip
_MANY = 12


def steps_in_words(
    steps: Sequence[Mapping[str, Any]], parameters: Mapping[str, Sequence[str]]
) -> list[tuple[list[str], str, list[str]]]:
    """Return for each step its name and what it does, its parameters, and what it measured.

    Args:
        steps: What the steps recorded.
        parameters: Names of each step's parameters.
    """
    rows = []
    for record in steps:
        name = str(record["step"])
        given = parameters.get(name, ())
        settings = {key: record[key] for key in record if key in given}
        measured = {k: v for k, v in record.items() if k not in given and k != "step"}
        applied = measured.pop("applied", None)
        why = measured.pop("why", None)
        effect = [] if applied is None or why else ["applied" if applied else "changed nothing"]
        effect += [f"not applied: {why}"] if why else []
        rows.append(
            (
                [name, _summary(name)],
                "; ".join(_lines(settings)),
                effect + _lines(measured) or ["nothing to measure"],
            )
        )
    return rows


def _summary(name: str) -> str:
    doc = STEPS[name].__doc__ if name in STEPS else "Cut the scene into tiles, and judge each."
    first = str(doc).splitlines()[0].replace("`", "")
    return first.replace("; lazy.", ".").replace(", lazily.", ".")


def _lines(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in record.items():
        # By detector, half or column: a line each.
        if isinstance(value, Mapping) and _all_records(value):
            lines += [f"{spaced(part)}: {_joined(inner)}" for part, inner in value.items()]
        else:
            lines.append(f"{_NAMES.get(key, spaced(key))}: {said(key, value)}")
    return lines


def _all_records(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(isinstance(inner, Mapping) for inner in value.values())


def _joined(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{_NAMES.get(k, spaced(k))} {said(k, v)}" for k, v in record.items())


def said(key: str, value: Any) -> str:
    """Return a recorded value in words, with its unit if it has one."""
    text = _said(key, value)
    unit = UNITS.get(key, "") if value is not None and not isinstance(value, bool) else ""
    return f"{text} {unit}".rstrip()


def _said(key: str, value: Any) -> str:
    if value is None:
        return "none striped" if key.endswith("stripe_index") else "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return _joined(value) if value else "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _listed(key, value)
    return str(value)


def _listed(key: str, values: Sequence[Any]) -> str:
    if not values:
        return "none"
    if key in _BANDS:
        return ranges(list(values))
    if key in _PAIRS:
        return " → ".join(_said("", value) for value in values)
    if key == "pairs":
        return ", ".join(f"{one}/{other}" for one, other in values)
    known = [value for value in values if isinstance(value, float | int)]
    if len(known) > _MANY:
        return f"{min(known):.4g} to {max(known):.4g} over {len(known)} values"
    return ", ".join(_said("", value) for value in values)


def reason_in_words(reason: str) -> str:
    """Return why a tile was rejected; "" is kept."""
    known = {"": "kept", "nodata": "too few valid pixels", "split_border": "between two splits",
             "no_place": "place unknown"}  # fmt: skip
    return known.get(reason, spaced(reason))


def limit_in_words(limits: Mapping[str, float]) -> str:
    """Return the limits that a rule sets, after its column's name; "" if it sets none."""
    words = {"min": "least", "max": "most"}
    return "".join(f", at {words[end]} {value:g}" for end, value in limits.items())


def spaced(name: object) -> str:
    """Return a name of the code as words."""
    return str(name).replace("_", " ")
