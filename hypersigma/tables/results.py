"""Numbers of cells as a long Parquet table, and as Markdown with means and deviations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hypersigma.runlog import duration

type Records = Sequence[Mapping[str, Any]]

COLUMNS: dict[str, dict[str, int]] = {
    "patch_classification": {"oa": 1, "aa": 1, "kappa": 1, "miou": 1},
    "segmentation": {"oa": 1, "aa": 1, "kappa": 1, "miou": 1},
    "target_detection": {
        "auc_d_f": 1, "auc_d_tau": 1, "auc_f_tau": -1, "auc_oa": 1, "auc_snpr": 1,
    },
    "anomaly_detection": {
        "auc_d_f": 1, "auc_d_tau": 1, "auc_f_tau": -1, "auc_oa": 1, "auc_snpr": 1,
    },
    "change_detection": {"f1": 1, "kappa": 1, "oa": 1, "precision": 1, "recall": 1},
    "unmixing": {"rmse": -1, "sad": -1},
    "denoising": {"psnr": 1, "ssim": 1, "sam": -1, "ergas": -1, "rmse": -1},
    "super_resolution": {"psnr": 1, "ssim": 1, "sam": -1, "ergas": -1, "rmse": -1},
}  # fmt: skip
"""Numbers of each task that its table shows, and whether more (1) or less (-1) is better."""

MODES = ("spatial", "spectral", "both")
SUMMARY = ("table", "number", "best classical", *MODES, "best model ahead by")
IN_SHORT = "The first number of each table, mean ± standard deviation over seeds."


@dataclass(frozen=True)
class Row:
    """A method of a table."""

    name: str
    means: tuple[float, ...]
    """Of the table's columns."""
    deviations: tuple[float, ...]
    """Over seeds, of a sample; nan with one seed."""
    seeds: int
    seconds: float
    """Mean of a cell."""
    folder: str
    """Of the first seed's cell, below that of the tables: its log, checkpoints and maps."""


def tables(records: Records) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each table's title and records, in their order."""
    for title in dict.fromkeys(one["experiment"] for one in records):
        yield title, [dict(one) for one in records if one["experiment"] == title]


def rows(records: Records) -> list[Row]:
    """Return a table's rows, in their order."""
    columns = columns_of(records)
    found = []
    for name in dict.fromkeys(one["name"] for one in records):
        mine = [one for one in records if one["name"] == name]
        values = np.array(
            [[_number(one["metrics"].get(column)) for column in columns] for one in mine]
        )
        spread = values.std(0, ddof=1) if len(mine) > 1 else np.full(len(columns), np.nan)
        seconds = float(np.mean([one["seconds"] for one in mine]))
        first = min(mine, key=lambda one: one["seed"])
        run = Path(first["config"]["run"])
        found.append(
            Row(
                name, tuple(values.mean(0).tolist()), tuple(spread.tolist()), len(mine), seconds,
                f"{run.parent.name}/{run.name}",
            )
        )  # fmt: skip
    return found


def summary(records: Records) -> list[list[str]]:
    """Return a line a table of its first number: the classical method that is best, the models.

    The last cell is by how much the best model is better than it.
    """
    lines = []
    for title, mine in tables(records):
        (column, sign), *_ = columns_of(mine).items()
        kinds = {
            one["name"]: "classical" if one["method"] else one["config"]["mode"] for one in mine
        }
        best: dict[str, Row] = {}
        for row in rows(mine):
            kind = kinds[row.name]
            if kind not in best or sign * (row.means[0] - best[kind].means[0]) > 0:
                best[kind] = row
        models = [row for kind, row in best.items() if kind != "classical"]
        gain = ""
        if models and "classical" in best:
            ahead = max(sign * (row.means[0] - best["classical"].means[0]) for row in models)
            gain = f"{ahead:+.3f}"
        cells = [
            _text(best[kind].means[0], best[kind].deviations[0]) if kind in best else ""
            for kind in ("classical", *MODES)
        ]
        if "classical" in best:
            cells[0] += f" ({best['classical'].name})"
        lines.append([title, head({column: sign})[0], *cells, gain])
    return lines


def columns_of(records: Records) -> dict[str, int]:
    """Return the numbers that a table shows, and which way they are better."""
    return COLUMNS[records[0]["config"]["task"]]


def cells_of(found: Sequence[Row], columns: Mapping[str, int]) -> list[list[tuple[str, bool]]]:
    """Return the text of each number of a table, and whether it is the best of its column."""
    means = np.array([row.means for row in found])
    lines = []
    for number, row in enumerate(found):
        line = []
        for column, sign in enumerate(columns.values()):
            of_all = means[:, column] * sign
            best = bool(np.isfinite(of_all).any() and of_all[number] == np.nanmax(of_all))
            line.append((_text(row.means[column], row.deviations[column]), best))
        lines.append(line)
    return lines


def write_parquet(path: Path, records: Records) -> Path:
    """Write one row a number: table, method, scene, seed, number, and where the cell is."""
    long = [
        {
            "experiment": one["experiment"], "name": one["name"], "method": one["method"],
            "task": one["config"]["task"], "data": one["config"]["data"],
            "mode": None if one["method"] else one["config"]["mode"],
            "size": None if one["method"] else one["config"]["size"],
            "seed": one["seed"], "metric": metric, "value": _number(value),
            "seconds": one["seconds"], "cell": Path(one["config"]["run"]).name,
        }
        for one in records for metric, value in one["metrics"].items()
    ]  # fmt: skip
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    schema = pa.schema(
        [*((name, text) for name in ("experiment", "name", "method", "task", "data", "mode",
                                     "size")),
         ("seed", whole), ("metric", text), ("value", real), ("seconds", real), ("cell", text)]
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(long, schema), path)
    return path


def write_markdown(path: Path, records: Records) -> Path:
    """Write each table with means and deviations over seeds; the best of a column is bold."""
    lines = ["# Results", "", IN_SHORT, ""]
    lines += ["| " + " | ".join(SUMMARY) + " |", "|---" * len(SUMMARY) + "|"]
    lines += ["| " + " | ".join(line) + " |" for line in summary(records)] + [""]
    for title, mine in tables(records):
        columns, found = columns_of(mine), rows(mine)
        lines += [f"## {title}", "", about(mine), ""]
        names = ["method", *head(columns), "seeds", "time", "run of the first"]
        lines.append("| " + " | ".join(names) + " |")
        lines.append("|---" * (len(columns) + 4) + "|")
        for row, texts in zip(found, cells_of(found, columns), strict=True):
            cells = [f"**{text}**" if best else text for text, best in texts]
            last = [str(row.seeds), time_of(row), f"`{row.folder}`"]
            lines.append(f"| {row.name} | " + " | ".join([*cells, *last]) + " |")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def about(records: Records) -> str:
    """Return in words what a table is about."""
    config = records[0]["config"]
    return (
        f"{config['task'].replace('_', ' ')} of `{config['data']}`; mean ± standard deviation over "
        "seeds; the best mean is bold; time is of one seed."
    )


def time_of(row: Row) -> str:
    """Return a row's time in words."""
    return duration(row.seconds) if row.seconds >= 10 else f"{row.seconds:.1f} s"


def head(columns: Mapping[str, int]) -> list[str]:
    """Return the names of a table's columns, with which way they are better."""
    return [f"{name} {'↑' if sign > 0 else '↓'}" for name, sign in columns.items()]


def _text(mean: float, deviation: float) -> str:
    digits = 3 if abs(mean) < 10 else 2
    if np.isnan(mean):
        return ""
    return f"{mean:.{digits}f}" + ("" if np.isnan(deviation) else f" ± {deviation:.{digits}f}")


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
