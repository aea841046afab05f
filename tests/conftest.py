"""How tests share the machine: what starts servers stays in one process, a file in another."""

from pathlib import PurePosixPath
from typing import Any

import pytest

SERVERS = {"integration", "flows"}
ONE_WORLD = {"synth"}
"""Folders whose files share what takes long to make."""
APART = {"test_docs.py"}
"""Files whose tests share nothing and take long."""


def together(nodeid: str) -> str:
    """Return the name of the tests that one process runs, in their order."""
    path = PurePosixPath(nodeid.partition("::")[0])
    if path.name in APART:
        return nodeid
    if SERVERS & set(path.parts):
        return "servers"
    return str(path.parent if ONE_WORLD & set(path.parts) else path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give whole groups to processes.

    By hand: the groups of `--dist loadgroup` are in names that pytest 9 no longer reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    return Together(config, log)
