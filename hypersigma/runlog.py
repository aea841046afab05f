"""What a run says while it works: JSON lines, TensorBoard, a progress bar or plain log lines."""

import json
import logging
import math
import resource
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rich.console
import rich.progress
import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
PACE_STEPS = 20
"""Steps that the time left is told from."""
BAR_COLUMNS = (
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeRemainingColumn(),
    rich.progress.TextColumn("{task.fields[note]}"),
)


class RunLog:
    """The open log files of one run.

    Args:
        run: Run folder; `metrics.jsonl` and `tensorboard/` are in it.
        start: Step the run starts or goes on at. Records of later steps, left by a run that was
            killed after its last checkpoint, are dropped.
        steps: Steps of the whole run.
        every: Steps between two plain log lines.
    """

    def __init__(self, run: Path, *, start: int, steps: int, every: int) -> None:
        self._path = run / METRICS_FILE
        kept = [record for record in read_metrics(run) if record["step"] <= start]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        self._path.write_text(text if start else "", encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1)
        self._every = every
        self._steps = steps
        self._ends = deque[float]([time.perf_counter()], maxlen=PACE_STEPS)
        self._bar = rich.progress.Progress(
            *BAR_COLUMNS, console=rich.console.Console(stderr=True), disable=not sys.stderr.isatty()
        )
        self._task = self._bar.add_task(run.name, total=steps, completed=start, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._file.close()
        self._writer.close()

    def write(self, step: int, record: Mapping[str, float]) -> dict[str, float]:
        """Add the numbers of one finished step (counted from 1), and return them and memory."""
        record = {**record, "memory_gb": memory_gb()}
        now = time.perf_counter()
        self._ends.append(now)
        pace = (now - self._ends[0]) / max(1, len(self._ends) - 1)
        self._file.write(plain_json({"step": step, **record}, indent=None) + "\n")
        self._file.flush()
        # One event with all of them: `add_scalar` makes one of each, three times the work.
        values = [Summary.Value(tag=name, simple_value=value) for name, value in record.items()]
        self._writer._get_file_writer().add_summary(Summary(value=values), step)
        note = "  ".join(f"{name} {value:.4g}" for name, value in record.items())
        self._bar.update(self._task, completed=step, note=in_short(record, pace))
        if self._bar.disable and (step % self._every == 0 or step == self._steps):
            left = duration((self._steps - step) * pace)
            logger.info("step %d/%d  %s  left %s", step, self._steps, note, left)
        return record

    def image(self, step: int, name: str, pixels: Any) -> None:
        """Show `pixels` (y, x, 3) [0-1] in TensorBoard."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")


def in_short(record: Mapping[str, float], seconds: float) -> str:
    """Return what stands beside the progress bar.

    Args:
        record: Of a step.
        seconds: That a step takes, all in all.
    """
    parts = [f"loss {record.get('loss', math.nan):.4f}"]
    if "lr" in record:
        parts.append(f"lr {record['lr']:.2g}")
    if "samples_per_s" in record:
        parts.append(f"{record['samples_per_s']:.4g} samples/s")
    if "tflops" in record:
        share = f" ({record['peak_share']:.0%} of peak)" if "peak_share" in record else ""
        parts.append(f"{record['tflops']:.3g} TFLOP/s{share}")
    if "data_wait" in record and seconds > 0:
        parts.append(f"waits {min(1.0, record['data_wait'] / seconds):.0%}")
    if "memory_gb" in record:
        parts.append(f"{record['memory_gb']:.1f} GB")
    return "  ".join(parts)


def memory_gb() -> float:
    """Return the most memory this process had so far [GB]: of its GPU, without one its own."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9


def duration(seconds: float) -> str:
    """Return a time in words, by its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    said = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(said[:2]) or "0 s"


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Return the records of a run's `metrics.jsonl`, oldest first; a torn last line is left out."""
    path = run / METRICS_FILE
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def plain_json(value: Any, *, indent: int | None = 1) -> str:
    """Return standard JSON; a number that is not finite becomes null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one, names joined by dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


@contextmanager
def progress[T](items: Iterable[T], *, total: int, title: str) -> Iterator[Iterator[T]]:
    """Show how far a loop over `items` is: a bar on a terminal, plain log lines elsewhere."""
    bar = rich.progress.Progress(
        *BAR_COLUMNS, console=rich.console.Console(stderr=True), disable=not sys.stderr.isatty()
    )
    with bar:
        task = bar.add_task(title, total=total, note="")
        yield _counted(items, total, title, lambda: bar.advance(task), quiet=not bar.disable)


def _counted[T](
    items: Iterable[T], total: int, title: str, advance: Any, *, quiet: bool
) -> Iterator[T]:
    every = max(1, total // 10)
    for done, item in enumerate(items, start=1):
        yield item
        advance()
        if not quiet and (done % every == 0 or done == total):
            logger.info("%s %d/%d", title, done, total)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
