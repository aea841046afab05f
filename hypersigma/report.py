"""One self-contained page about a run, finished or not, from the files in its folder alone."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypersigma import report_figures as figures
from hypersigma.checkpoint import STATE_FILE
from hypersigma.diagnosis import Pace, diagnosis, pace
from hypersigma.environment import ENVIRONMENT_FILE
from hypersigma.heldout import FIGURE_FILE
from hypersigma.pictures import PICTURE_FILE
from hypersigma.runfolder import CONFIG_FILE, SUMMARY_FILE, TrainError
from hypersigma.runlog import duration, flatten, read_metrics
from storage import html

REPORT_FILE = "report.html"
LAST_STEPS = 20
"""Steps that a loss is the mean of."""


@dataclass(frozen=True)
class Run:
    """What a run's folder holds."""

    folder: Path
    task: str
    config: dict[str, Any]
    data: dict[str, Any]
    records: list[dict[str, float]]
    """Of the finished steps, oldest first."""
    summary: dict[str, Any] | None
    """None: the run is not finished."""
    environment: dict[str, Any]
    """Empty: it was begun before there was such a file."""

    @property
    def samples(self) -> int:
        """How many samples a step has."""
        train = self.config["train"]
        return int(train["batch_size"] * train["accumulate"])

    def newest(self, name: str) -> float | None:
        """Return the last value of a record, None if there is none."""
        return next((o[name] for o in reversed(self.records) if o.get(name) is not None), None)

    @property
    def pace(self) -> Pace | None:
        """How fast it is; None: too few steps to tell."""
        return pace(self.records, self.samples)


def report(run: Path, out: Path | None = None) -> dict[str, Any]:
    """Write the page about a run and return where it is, and its line of diagnosis.

    Args:
        run: A run's folder.
        out: The page; None: `report.html` in the run's folder.

    Raises:
        TrainError: The folder holds no run.
    """
    found = read_run(run)
    page = out or run / REPORT_FILE
    page.parent.mkdir(parents=True, exist_ok=True)
    temporary = page.with_name(f".{page.name}.{os.getpid()}")
    temporary.write_text(html.document(f"Run {run.name}", parts(found)), encoding="utf-8")
    temporary.replace(page)
    return {"report": str(page), "state": state(found), "diagnosis": verdict(found)}


def read_run(run: Path) -> Run:
    """Read a run's folder.

    Raises:
        TrainError: It holds no run.
    """
    if not (run / CONFIG_FILE).is_file():
        raise TrainError(
            f"{run}: expected a run's folder with {CONFIG_FILE}, found none; "
            "name one that `hypersigma-train pretrain` or `finetune` made"
        )
    said = _json(run / CONFIG_FILE) or {}
    return Run(
        folder=run, task=said["task"], config=said["config"], data=said["data"],
        records=read_metrics(run), summary=_json(run / SUMMARY_FILE),
        environment=_json(run / ENVIRONMENT_FILE) or {},
    )  # fmt: skip


def parts(run: Run) -> Iterator[str]:
    """Yield the sections of the page, as HTML."""
    yield f"<h1>Run {html.escape(run.folder.name)}</h1>"
    yield html.paragraph(f"{run.task}, {state(run)}; {_data_in_words(run)}", soft=True)
    yield html.tiles(*numbers(run))
    if (line := verdict(run)) is not None:
        yield html.paragraph(line)
    if (warning := _learnt_nothing(run)) is not None:
        yield html.paragraph(warning)
    if run.records:
        yield from _curves(run)
    yield from _pictures(run)
    yield from _reconstruction(run)
    yield from _checkpoints(run)
    yield html.heading("Config")
    yield html.folded("all values", html.code(_lines(run.config)))
    yield from _environment(run)


def state(run: Run) -> str:
    """Return in words how far the run is."""
    steps, last = run.config["train"]["steps"], run.records[-1]["step"] if run.records else 0
    return f"finished, {steps} steps" if run.summary else f"not finished: step {last} of {steps}"


def verdict(run: Run) -> str | None:
    """Return the line of diagnosis; None: too few steps to tell."""
    found = run.pace
    return None if found is None else diagnosis(found, run.config.get("workers"))


def numbers(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the large numbers and what they are."""

    def last(name: str) -> float | None:
        values = [one[name] for one in run.records[-LAST_STEPS:] if one.get(name) is not None]
        return sum(values) / len(values) if values else None

    for value, name in (
        (last("loss"), f"loss, mean of the last {LAST_STEPS}"),
        (last("loss_mean_spectrum"), "the same of the mean spectrum"),
        (run.newest("val_loss"), "held-out loss"),
        (run.newest("val_loss_mean_spectrum"), "the same of the mean spectrum"),
        (run.newest("val_oa"), "held-out accuracy"),
    ):
        if value is not None:
            yield f"{value:.4g}", name
    if (found := run.pace) is not None:
        yield f"{found.samples_per_s:.4g}", "samples / s"
        yield f"{found.waiting:.0%}", "waiting for data"
    if run.summary:
        yield duration(run.summary["seconds"]), "of training"


def _learnt_nothing(run: Run) -> str | None:
    loss, plain = run.newest("val_loss"), run.newest("val_loss_mean_spectrum")
    if loss is None or plain is None or loss < plain:
        return None
    return "The held-out loss is not below that of the mean spectrum: nothing is learnt yet."


def _curves(run: Run) -> Iterator[str]:
    yield html.heading("Losses")
    yield html.image(figures.losses(run.records), "losses over the steps")
    if (accuracy := figures.scores(run.records)) is not None:
        yield html.heading("Accuracy")
        yield html.image(accuracy, "overall accuracy over the steps")
    yield html.heading("Rate and gradient")
    yield html.image(figures.rates(run.records), "learning rate and gradient's norm over the steps")
    yield html.heading("Throughput")
    uri = figures.throughput(run.records, run.samples)
    yield html.image(uri, "samples a second, and waiting for data, over the steps")


def _pictures(run: Run) -> Iterator[str]:
    titles = {PICTURE_FILE: "A held-out tile", FIGURE_FILE: "Errors band by band"}
    for file, title in titles.items():
        path = run.folder / file
        if path.is_file():
            yield html.heading(title)
            yield html.image(html.data_uri(path.read_bytes()), title)


def _reconstruction(run: Run) -> Iterator[str]:
    errors = (run.summary or {}).get("reconstruction")
    if errors:
        names = list(dict.fromkeys(name for one in errors.values() for name in one))
        rows = (
            (sensor, *(f"{one[name]:.4f}" if name in one else "" for name in names))
            for sensor, one in errors.items()
        )
        yield html.paragraph("Root mean squared error of hidden pixels, in units of the inputs:")
        yield html.table(("sensor", *(name.replace("_", " ") for name in names)), rows)


def _checkpoints(run: Run) -> Iterator[str]:
    yield html.heading("Checkpoints")
    folders = sorted((run.folder / "checkpoints").glob("step-*"))
    rows = []
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        found = _json(folder / STATE_FILE) or {}
        best = found.get("best") or {}
        note = "best so far" if best.get("step") == found.get("step") and best else ""
        rows.append((folder.name, f"{size / 1e6:.1f} MB", note))
    yield html.table(("folder", "size", ""), rows) if rows else html.paragraph("none yet")


def _environment(run: Run) -> Iterator[str]:
    yield html.heading("Data")
    yield html.table(("what", "which"), run.data.items())
    spectral = run.environment.get("spectral", {})
    if spectral:
        head = ("sensor", "bands", "from [nm]", "to [nm]", "units", "scale")
        yield html.table(head, (_sensor_row(name, one) for name, one in spectral.items()))
    yield html.heading("Environment")
    if not run.environment:
        yield html.paragraph("not recorded: the run was begun by an earlier version")
        return
    shown = {k: v for k, v in run.environment.items() if k not in ("data", "spectral")}
    yield html.folded("versions, GPU and code", html.code(_lines(shown)))


def _lines(sections: Mapping[str, Any]) -> str:
    """Return nested values as overrides are written, a line each."""
    return "\n".join(f"{key}={json.dumps(value)}" for key, value in flatten(sections).items())


def _sensor_row(name: str, contract: Mapping[str, Any]) -> tuple[object, ...]:
    centres = [value for one in contract["wavelengths"] for value in one]
    low, high = f"{min(centres):.0f}", f"{max(centres):.0f}"
    return name, len(contract["band"]), low, high, contract["units"], contract["scale"]


def _data_in_words(run: Run) -> str:
    return f"data {run.data['dataset']} {run.data['version']}"


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
