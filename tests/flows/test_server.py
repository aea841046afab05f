"""The server that `serve` starts: its pages ask at the port that it listens on."""

import json
import urllib.request

import pytest

from pipeline.flows.server import prefect_server, quiet_defaults

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def test_pages_of_our_own_server_find_it(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    quiet_defaults()
    with prefect_server() as url:
        page = url.removesuffix("/api") + "/ui-settings"
        with urllib.request.urlopen(page) as answer:  # noqa: S310  # on loopback
            assert json.load(answer)["api_url"] == url
