"""The flow wraps the same plain functions: a task a scene, failures reported and not fatal."""

import json

import pytest

from storage import store

pytestmark = pytest.mark.prefect


def run(config_file, monkeypatch):
    from pipeline.flows import build_dataset

    quick = build_dataset.ingest_scene.with_options(retry_delay_seconds=0)
    monkeypatch.setattr(build_dataset, "ingest_scene", quick)
    return build_dataset.build_flow(str(config_file))


def test_a_failed_scene_is_named_and_the_others_are_published(config, monkeypatch, prefect_api):
    from pipeline.flows.build_dataset import ScenesFailedError

    file, source, tries = config
    for name in ("good", "bad", "late"):
        (source / name).touch()
    with pytest.raises(ScenesFailedError, match=r"bad: .*expected 242 bands, got 7") as caught:
        run(file, monkeypatch)
    report = caught.value.report
    assert (report.version, report.added) == ("v1", ("good", "late"))
    assert [failure.scene for failure in report.failures] == ["bad"]
    assert tries == {"good": 1, "bad": 1, "late": 2}  # only what may heal is tried again
    assert json.loads(report.to_json())["tiles"] == report.tiles > 0


def test_a_second_run_adds_only_what_is_new(config, monkeypatch, prefect_api):
    file, source, tries = config
    (source / "good").touch()
    run(file, monkeypatch)
    (source / "new").touch()
    second = run(file, monkeypatch)
    third = run(file, monkeypatch)
    assert (second.version, second.added) == ("v2", ("new",))
    assert (third.version, third.added) == (None, ())
    assert tries == {"good": 1, "new": 1}
    repo = store.open_repository(str(file.parent / "store"))
    assert [version.tag for version in store.versions(repo)] == ["v1", "v2"]
