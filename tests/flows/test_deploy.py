"""`deploy` refuses what workers could not run; what it registers, tests/integration runs."""

import pytest
import yaml

from pipeline.flows.deploy import deploy


@pytest.mark.parametrize("name", ["source", "store", "shards", "report"])
def test_a_place_that_depends_on_the_folder_is_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    settings = {key: str(tmp_path / key) for key in ("source", "store", "shards", "report")}
    settings |= {"name": "d", "recipe": "reference", name: "here"}
    file = tmp_path / "dataset.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert deploy(str(file), []) == 1
    assert f"{name}=here: expected full paths or URLs" in capsys.readouterr().err


def test_a_server_must_be_named(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert deploy("dataset/demo", []) == 1
    assert "set PREFECT_API_URL" in capsys.readouterr().err
