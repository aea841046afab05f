"""What differs between runs: YAML files, and the one reader of them.

A config is a frozen pydantic dataclass beside the code that reads it; YAML says only what
differs from its defaults. May import yaml and pydantic, never a package of this project.
"""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

CONFIG_DIR = Path(__file__).parent


class ConfigError(ValueError):
    """A config file or an override that does not fit its schema."""


def load[T](schema: type[T], path: Path | str, overrides: Sequence[str] = ()) -> T:
    """Read `path`, apply `section.field=value` overrides and check it all against `schema`.

    Args:
        schema: A frozen pydantic dataclass with `extra="forbid"`.
        path: A YAML file, or the name of a shipped one such as `dataset/demo`.
        overrides: `section.field=value`; the value is read as YAML, later ones win.

    Raises:
        ConfigError: No such file, no valid YAML, an unknown key, a wrong type or a missing value;
            names the file, the key and the nearest known key.
    """
    return check(schema, read(path, overrides), where=str(find(path)))


def read(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read `path` as plain data and apply the overrides; see `load`.

    Raises:
        ConfigError: No such file, no valid YAML, no mapping, or a malformed override.
    """
    file = find(path)
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: expected a mapping of keys, got {type(raw).__name__}")
    for override in overrides:
        _apply(raw, override)
    return raw


def find(path: Path | str) -> Path:
    """Return the YAML file that `path` names: itself, or `configs/<path>.yaml`.

    Raises:
        ConfigError: Neither exists.
    """
    shipped = CONFIG_DIR / f"{path}.yaml"
    for candidate in (Path(path), shipped):
        if candidate.is_file():
            return candidate
    names = sorted(
        str(f.relative_to(CONFIG_DIR).with_suffix("")) for f in CONFIG_DIR.rglob("*.yaml")
    )
    nearest = difflib.get_close_matches(str(path), names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}" if nearest else f"they are {', '.join(names)}"
    raise ConfigError(f"no config at {path}, and no shipped one of that name; {hint}")


def check[T](schema: type[T], raw: Any, *, where: str) -> T:
    """Check plain data against `schema`; `where` says in the error message what it came from.

    Raises:
        ConfigError: The data does not fit; every problem is listed.
    """
    try:
        return TypeAdapter(schema).validate_python(raw)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(schema, problem)}" for problem in error.errors())
        raise ConfigError(f"{where} does not fit {schema.__name__}:\n{problems}") from error


def _apply(raw: dict[str, Any], override: str) -> None:
    dotted, equals, value = override.partition("=")
    *sections, field = dotted.split(".")
    if not equals or not all((*sections, field)):
        raise ConfigError(f"an override must read section.field=value, got {override!r}")
    node = raw
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {section} is a value, not a section")
    try:
        node[field] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from error


def _explain(schema: type, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] not in ("unexpected_keyword_argument", "extra_forbidden"):
        # A key in a URL is the likeliest reason for its refusal: it is not shown.
        got = re.sub(r"//.*@", "//***@", repr(problem["input"]))
        return f"{where}: {problem['msg']}, got {got}"
    names = sorted(_known_keys(schema))
    nearest = difflib.get_close_matches(str(problem["loc"][-1]), names, n=1, cutoff=0.0)
    return f"{where}: unknown key" + (f"; did you mean {nearest[0]!r}?" if nearest else "")


def _known_keys(schema: Any) -> set[str]:
    """Return the field names of `schema` and of every dataclass in its annotations."""
    names: set[str] = set()
    todo, seen = [schema], set()
    while todo:
        kind = todo.pop()
        if kind in seen:
            continue
        seen.add(kind)
        todo += getattr(kind, "__args__", ())
        if dataclasses.is_dataclass(kind):
            fields = dataclasses.fields(kind)
            names |= {field.name for field in fields}
            todo += [field.type for field in fields]
    return names
