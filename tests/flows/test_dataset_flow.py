"""The scheduled flow: build, audit, shards, report; what leaks stays no shards; who is told."""

import base64
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from types import SimpleNamespace
from uuid import uuid4

import pytest
import yaml
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Crashed

from pipeline import outputs
from pipeline.build import DatasetConfig
from storage import store
from storage.shardset import open_shards

pytestmark = pytest.mark.prefect


@pytest.fixture
def chain(config, monkeypatch, tmp_path, prefect_api):
    """The dataset with shards and report; call it to run the flow once."""
    from pipeline.flows import build_dataset, dataset

    for module, names in ((build_dataset, ["ingest_scene"]),
                          (dataset, ["audit_version", "make_shards", "make_report"])):  # fmt: skip
        for name in names:
            quick = getattr(module, name).with_options(retry_delay_seconds=0)
            monkeypatch.setattr(module, name, quick)
    file, source, _ = config

    def run(**more):
        settings = {**yaml.safe_load(file.read_text()), **more}
        settings |= {"shards": str(tmp_path / "shards"), "report": str(tmp_path / "card")}
        settings |= {"split": {"block_km": 20, "fractions": {"train": 0.5, "test": 0.5}}}
        file.write_text(yaml.safe_dump(settings))
        return dataset.dataset_flow(str(file))

    return run, source, tmp_path


@pytest.fixture
def webhook(monkeypatch):
    """A server on loopback; the alerts that it got."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("ALERTS", f"http://127.0.0.1:{server.server_port}/secret")
    yield got
    server.shutdown()
    thread.join()
    server.server_close()


def last_artefact(key):
    """What Prefect's pages show under a key."""
    with get_client(sync_client=True) as client:
        found = client.request("GET", f"/artifacts/{key}/latest")
        return found.json()


def wait_for(read, expected):
    """Prefect writes down what tasks did a moment later."""
    for _ in range(50):
        if (found := read()) == expected:
            return True
        time.sleep(0.2)
    raise AssertionError(f"expected {expected}, got {found}")


def steps():
    """The newest run's own tasks and their states, in their order."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=9)
        run = next(run for run in runs if run.parent_task_run_id is None)
        tasks = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        )
    found = sorted(tasks, key=lambda task: task.start_time)
    return {task.name.rsplit("-", 1)[0]: task.state_name for task in found}


def test_a_version_has_its_shards_and_card_and_pages_show_them(chain):
    run, source, folder = chain
    for name in ("good", "better"):
        (source / name).touch()
    assert run() == "v1"
    done = ["build dataset", "audit v1", "shards v1", "report v1"]
    assert wait_for(steps, dict.fromkeys(done, "Completed"))
    assert open_shards(folder / "shards/v1", verify=True).manifest["version"] == "v1"
    assert json.loads((folder / "card/v1/report.json").read_text())["version"] == "v1"
    table = last_artefact("small-build")["data"]
    assert "2 scenes added" in table
    assert "| good | 6 |" in table
    assert "| **all** | 12 |" in table
    assert last_artefact("small-store")["data"].endswith(f"]({(folder / 'store').as_uri()})")
    page = (folder / "card/v1/index.html").as_uri()
    assert page in last_artefact("small-report")["data"]
    kind, _, data = last_artefact("small-quicklook")["data"].partition(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(BytesIO(base64.b64decode(data)))
    assert picture.size == (2 * (64 + 4 + 64), 2 * 64)


def test_a_run_with_nothing_new_makes_nothing_and_one_after_a_crash_what_is_missing(chain):
    run, source, folder = chain
    (source / "good").touch()
    assert run() == "v1"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.tar")}
    (folder / "card/v1/report.json").unlink()
    for left in sorted((folder / "card").rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    assert run() == "v1"
    assert "no new version" in last_artefact("small-build")["data"]
    assert (folder / "card/v1/report.json").exists()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.tar")} == before
    assert len(store.versions(store.open_repository(str(folder / "store")))) == 1


def test_a_version_that_leaks_has_no_shards_and_fails_each_time(chain, webhook):
    from pipeline.flows.dataset import RunFailedError

    run, source, folder = chain
    for number in range(6):
        (source / f"copy{number}").touch()
    for _ in range(2):
        with pytest.raises(RunFailedError, match=r"v1 did not pass its audit.*several splits"):
            run(alerts={"url_from": "ALERTS"})
    assert not (folder / "shards").exists()
    assert wait_for(
        steps, {"build dataset": "Completed", "audit v1": "Failed", "report v1": "Completed"}
    )
    card = (folder / "card/v1/README.md").read_text()
    assert "BREACHED" in card
    assert [alert["event"] for alert in webhook] == ["failed", "failed"]
    assert webhook[0]["version"] == "v1"
    assert "did not pass" in webhook[0]["text"]
    version = outputs.head(str(folder / "store"))
    config = DatasetConfig("small", source, str(folder / "store"), "r", shards=folder / "shards")
    with pytest.raises(outputs.LeakError):
        outputs.make_shards(config, version, {"passed": False, "version": "v1", "breaches": []})


def test_people_are_told_of_failures_and_quarantine(chain, webhook):
    from pipeline.flows.dataset import RunFailedError

    run, source, folder = chain
    for name in ("good", "bad"):
        (source / name).touch()
    for _ in range(3):
        with pytest.raises(RunFailedError, match=r"bad: .*expected 242 bands"):
            run(alerts={"url_from": "ALERTS"})
    assert run() == "v1"  # left alone from now on
    assert [alert["event"] for alert in webhook] == ["failed", "failed", "quarantined", "failed"]
    first = webhook[0]
    assert (first["dataset"], first["version"]) == ("small", "v1")
    (failure,) = first["failures"]
    assert failure["product"] == "bad"
    assert "expected 242 bands, got 7" in failure["reason"]
    assert "/runs/flow-run/" in first["link"]
    assert open_shards(folder / "shards/v1").manifest["version"] == "v1"  # of what did not fail
    assert "| bad | in quarantine |" in last_artefact("small-build")["data"]


def test_one_failure_hides_no_other(chain, webhook):
    from pipeline.flows.dataset import RunFailedError

    run, source, folder = chain
    for name in ("good", "bad"):
        (source / name).touch()
    (folder / "shards" / "v1").mkdir(parents=True)
    (folder / "shards" / "v1" / "mine.txt").touch()
    with pytest.raises(RunFailedError, match=r"bad: .*242 bands.*; .*v1"):
        run(alerts={"url_from": "ALERTS"})
    (alert,) = webhook
    assert "shards" in alert["text"]
    assert [bad["product"] for bad in alert["failures"]] == ["bad"]
    assert (folder / "card/v1/report.json").exists()
    assert (folder / "shards" / "v1" / "mine.txt").exists()


def test_people_are_told_of_a_crash(chain, webhook):
    from pipeline.flows.dataset import tell

    run, source, folder = chain
    (source / "good").touch()
    run(alerts={"url_from": "ALERTS"})
    file = str(folder / "dataset.yaml")
    ended = SimpleNamespace(id=uuid4(), parameters={"config_path": file})
    tell(None, ended, Crashed(message="the process was killed"))
    (alert,) = webhook
    assert (alert["event"], alert["version"]) == ("crashed", "v1")
    assert alert["text"] == "small: crashed: the process was killed"
    tell(None, SimpleNamespace(id=uuid4(), parameters={}), Crashed())  # nobody is above a hook


def test_a_command_is_told_and_one_that_fails_does_not_matter(chain):
    from pipeline.flows.dataset import RunFailedError

    run, source, folder = chain
    (source / "bad").touch()
    write = f"import sys; open({str(folder / 'told')!r}, 'w').write(sys.stdin.read())"
    for command in ([sys.executable, "-c", write], ["no-such-program"]):
        with pytest.raises(RunFailedError, match="bad"):
            run(alerts={"command": command})
    told = json.loads((folder / "told").read_text())
    assert (told["event"], told["version"]) == ("failed", None)
