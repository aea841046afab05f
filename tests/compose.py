"""docker-compose.yml as tests read it: anchors merged, variables filled in."""

import re
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+):\?[^}]+\}")
"""The one form of a variable that we use: Compose stops with the message where it is not set."""


def read() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def filled(values: dict[str, str]) -> dict[str, Any]:
    return _fill(read(), values)


def _fill(node: Any, values: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _fill(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(value, values) for value in node]
    if isinstance(node, str):
        return VARIABLE.sub(lambda match: values[match[1]], node)
    return node
