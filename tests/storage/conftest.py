import pytest

from tests.storage.tiles import make_store


@pytest.fixture
def location(tmp_path):
    return tmp_path / "demo"


@pytest.fixture
def repo(location):
    return make_store(location)
