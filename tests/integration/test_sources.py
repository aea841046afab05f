"""A bucket of archives as a dataset's source."""

import pytest

from pipeline.build import DatasetConfig, build_dataset
from storage import store
from storage.location import files_at
from tests.pipeline import raw_products as raw


@pytest.mark.parametrize("below", ["", "/below"])
def test_archives_of_a_bucket_become_tiles(location, tmp_path, below):
    source = f"s3://raw-{len(below)}{below}"
    name = f"{raw.ENTITY}_1T.ZIP"
    raw.zipped(raw.write_l1t(tmp_path / "product"), tmp_path / name)
    files_at(source).put(name, (tmp_path / name).read_bytes())
    config = DatasetConfig(
        "d", source, f"{location.partition('[')[0]}{len(below)}", "reference", cache=tmp_path / "c"
    )
    assert build_dataset(config).added == (f"{raw.ENTITY}_1T",)
    assert build_dataset(config).version is None
    scene = store.open_version(config.store)[f"scenes/{raw.ENTITY}_1T"]
    assert scene.attrs["sources"][0]["name"] == name
    assert list((tmp_path / "c").iterdir()) == []
