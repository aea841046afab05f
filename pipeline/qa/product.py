"""What a product is, as a page shows it: from the facts of `pipeline.inspect`."""

from collections.abc import Mapping
from typing import Any

from pipeline.sensors import SENSORS
from storage import html

_FEW = 12
"""Source files that are listed without a click."""


def one_line(facts: Mapping[str, Any]) -> str:
    """Return in words what was measured, when and by whom."""
    sensor = SENSORS[facts["sensor"]].title
    rows, cols = facts["shape"]
    return (
        f"{sensor} ({facts['platform']}), level {facts['level']}, {_time(facts['acquired'])}; "
        f"{rows} rows x {cols} columns x {facts['bands']} bands"
    )


def section(facts: Mapping[str, Any]) -> list[str]:
    """Return the section on the product, HTML; all text is escaped."""
    area = facts["valid_area"]
    rows = [
        ("sensor", SENSORS[facts["sensor"]].title),
        ("platform", facts["platform"]),
        ("level", facts["level"]),
        ("acquired", _time(facts["acquired"])),
        ("sun", f"elevation {_degrees(facts['sun_elevation'])}, "
                f"azimuth {_degrees(facts['sun_azimuth'])}"),
        ("view zenith", _degrees(facts["view_zenith"])),
        ("geometry", f"{facts['geometry']} {facts['crs'] or ''}".strip()),
        ("wavelengths", "{:.1f} to {:.1f} nm".format(*facts["wavelength"])),
        ("integers", f"{facts['dtype']}, no data is {facts['nodata']}"),
        ("valid area", f"{area['fraction']:.1%} of the pixels"
                       + (f", {area['km2']:.1f} km²" if area["km2"] is not None else "")),
        ("west, south, east, north", _box(area["bbox"])),
    ]  # fmt: skip
    sources = [(s["name"], f"{s['bytes']:,} bytes", s["sha256"]) for s in facts["sources"]]
    more = f"Source files, with their sha256: {len(sources)}"
    opened = " open" if len(sources) <= _FEW else ""
    listed = html.table(("file", "size", "sha256"), ((n, b, [h]) for n, b, h in sources))
    return [
        html.heading("Product"),
        html.table(("", ""), ((name, [value]) for name, value in rows)),
        f"<details{opened}><summary>{html.escape(more)}</summary>{listed}</details>",
    ]


def _time(acquired: str) -> str:
    return f"{acquired[:19].replace('T', ' ')} UTC"


def _degrees(angle: float | None) -> str:
    return "not known" if angle is None else f"{angle:.2f}°"


def _box(box: list[float] | None) -> str:
    return "not known" if box is None else ", ".join(f"{edge:.4f}°" for edge in box)
