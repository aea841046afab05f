"""How tests share the machine: what starts servers stays in one process, a file in another."""

from pathlib import Path

import pytest

SERVERS = {"integration", "flows"}
APART = {"test_docs.py"}
"""Files whose tests share nothing and take long."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here)
        if path.name not in APART:
            group = "servers" if path.parts[0] in SERVERS else str(path)
            item.add_marker(pytest.mark.xdist_group(group))
