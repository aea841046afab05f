"""`deploy` refuses what workers could not run; what it registers, tests/integration runs."""

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Pending

from pipeline.flows.deploy import deploy


@pytest.mark.prefect
def test_one_run_at_a_time_on_the_schedule_of_the_config(tmp_path, monkeypatch, prefect_api):
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    settings = {key: str(tmp_path / key) for key in ("source", "store")}
    settings |= {"name": "d", "recipe": "reference", "schedule": "*/7 * * * *"}
    file = tmp_path / "dataset.yaml"
    file.write_text(yaml.safe_dump(settings))
    for _ in range(2):  # the second replaces the first
        assert deploy(str(file), ["max_retired=0.3"]) == 0
    with get_client(sync_client=True) as client:
        registered = client.read_deployment_by_name("dataset/d")
        assert [entry.schedule.cron for entry in registered.schedules] == ["*/7 * * * *"]
        assert registered.parameters["config_path"] == str(file)
        assert registered.parameters["overrides"] == ["max_retired=0.3"]
        assert registered.work_pool_name == "hypersigma"
        runs = [client.create_flow_run_from_deployment(registered.id) for _ in range(2)]
        for run in runs:
            client.set_flow_run_state(run.id, Pending())
        states = [client.read_flow_run(run.id).state.type.value for run in runs]
        assert states == ["PENDING", "CANCELLED"]
        client.delete_deployment(registered.id)


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
