"""The one YAML reader: overrides, refusals, and the nearest known key."""

import dataclasses

import pydantic.dataclasses
import pytest
from pydantic import ConfigDict

import configs


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Optim:
    lr: float = 1e-3
    steps: int = 10


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Run:
    name: str
    optim: Optim = dataclasses.field(default_factory=Optim)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("name: a\noptim: {steps: 3}\n")
    return file


def test_reads_values_and_defaults(path):
    assert configs.load(Run, path) == Run(name="a", optim=Optim(lr=1e-3, steps=3))


def test_the_last_override_wins(path):
    assert configs.load(Run, path, ["optim.lr=1", "optim.lr=0.5"]).optim.lr == 0.5


@pytest.mark.parametrize("override", ["optim.lr", "=3", "optim.=3", "name.x=3"])
def test_refuses_a_malformed_override(path, override):
    with pytest.raises(configs.ConfigError, match="override"):
        configs.load(Run, path, [override])


def test_names_the_nearest_known_key(path):
    with pytest.raises(
        configs.ConfigError, match=r"optim\.stesp: unknown key; did you mean 'steps'"
    ):
        configs.load(Run, path, ["optim.stesp=3"])


def test_lists_every_problem_with_the_file(path):
    path.write_text("optim: {steps: many}")
    with pytest.raises(configs.ConfigError) as caught:
        configs.load(Run, path)
    message = str(caught.value)
    assert str(path) in message
    assert "name: " in message
    assert "'many'" in message


def test_refuses_what_is_no_mapping_or_no_yaml(path):
    path.write_text("- 1")
    with pytest.raises(configs.ConfigError, match="expected a mapping"):
        configs.load(Run, path)
    path.write_text("a: [")
    with pytest.raises(configs.ConfigError, match="not valid YAML"):
        configs.load(Run, path)


def test_names_a_missing_file(tmp_path):
    with pytest.raises(configs.ConfigError, match="no config at"):
        configs.load(Run, tmp_path / "absent.yaml")
