"""Train, evaluate and map: `hypersigma-train COMMAND CONFIG [section.field=value ...]`."""

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import rich.console
import rich.logging
import typer

import configs
from configs import ConfigError
from hypersigma.signals import noted_early

WRONG_USAGE = 2
FAILED = 1

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    help="Train on shards, evaluate, and turn scenes into maps.",
)  # fmt: skip

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench", help="Measure the data's pace, or tasks by several seeds.")

Config = Annotated[
    Path, typer.Argument(help="A YAML file, or the name of a shipped one: pretrain/demo_spatial.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="e.g. train.steps=100, run=runs/other."),
]
Dry = Annotated[
    bool,
    typer.Option("--dry-run", help="Check config, data, memory, disk and time; write nothing."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command(epilog="Example: hypersigma-train pretrain pretrain/demo_spatial run=runs/try")
def pretrain(
    config: Config, overrides: Overrides = None, dry_run: Dry = False, as_json: Json = False
) -> None:
    """Pretrain a masked autoencoder; go on where an interrupted run stopped."""

    def work() -> dict[str, Any]:
        from hypersigma import pretrain as command

        loaded = configs.load(command.PretrainConfig, config, overrides or ())
        return command.pretrain(loaded, dry=dry_run)

    with nullcontext() if dry_run else noted_early():
        (_report_dry if dry_run else _report)(work, as_json=as_json)


@app.command(epilog="Example: hypersigma-train finetune finetune/demo_both run=runs/try")
def finetune(
    config: Config, overrides: Overrides = None, dry_run: Dry = False, as_json: Json = False
) -> None:
    """Fine-tune from pretrained encoders or from scratch.

    A config with `task` trains that task on a cube; one with `shards` a classifier of labelled
    pixels of a data set.
    """

    def work() -> dict[str, Any]:
        if "task" in configs.read(config, overrides or ()):
            from hypersigma import cubefit
            from hypersigma.tasks.task import TaskConfig

            task = configs.load(TaskConfig, config, overrides or ())
            return cubefit.fit_task(task, dry=dry_run)
        from hypersigma import finetune as command

        loaded = configs.load(command.FinetuneConfig, config, overrides or ())
        return command.finetune(loaded, dry=dry_run)

    with nullcontext() if dry_run else noted_early():
        (_report_dry if dry_run else _report)(work, as_json=as_json)


@app.command(
    epilog="Example: hypersigma-train evaluate evaluate/demo checkpoint=demo/runs/finetune_both"
)
def evaluate(config: Config, overrides: Overrides = None, as_json: Json = False) -> None:
    """Measure a fine-tuned model on held-out pixels; a classifier also beside classical controls.

    Of a run of a task on a cube the config needs `checkpoint` alone.
    """

    def work() -> dict[str, Any]:
        if _cube_task(config, overrides) is not None:
            from hypersigma import cubefit

            return cubefit.evaluate_task(configs.load(cubefit.UseConfig, config, overrides or ()))
        from hypersigma import evaluate as command

        return command.evaluate(configs.load(command.EvaluateConfig, config, overrides or ()))

    _report(work, as_json=as_json)


@app.command(
    epilog="Example: hypersigma-train predict predict/demo scene_id=EO1H2000342003126110KF_1T"
)
def predict(config: Config, overrides: Overrides = None, as_json: Json = False) -> None:
    """Classify a whole scene of a store into a GeoTIFF and a PNG, or map a cube.

    Of a run of a task on a cube the config needs `checkpoint` and, for a map, `out` and one of
    `image`, `store` with `scene_id`, `product` and `data`; without these the maps are arrays.
    """

    def work() -> dict[str, Any]:
        task = _cube_task(config, overrides)
        if task is not None:
            from hypersigma.mapping import scenes
            from hypersigma.mapping.seen import SEEN

            named = configs.read(config, overrides or ()).keys()
            if named & {"image", "store", "product"} or ("data" in named and task in SEEN):
                return scenes.map_scene(configs.load(scenes.MapConfig, config, overrides or ()))
            from hypersigma import cubefit

            return cubefit.predict_task(configs.load(cubefit.UseConfig, config, overrides or ()))
        from hypersigma import maps as command

        return command.predict(configs.load(command.PredictConfig, config, overrides or ()))

    _report(work, as_json=as_json)


@app.command(epilog="Example: hypersigma-train export demo/runs/finetune_both exports/classifier")
def export(
    run: Annotated[Path, typer.Argument(help="A run (its best checkpoint), or one checkpoint.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; not there yet, or empty.")],
    what: Annotated[
        Literal["encoder", "spatial", "spectral", "model"] | None,
        typer.Option(help="Default: the encoder of a pretraining, the model of a classifier."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model with its spectral contract and card into a folder to hand on."""

    def work() -> dict[str, Any]:
        from hypersigma import export as command

        return command.export(run, out, what)

    _report(work, as_json=as_json)


@app.command(epilog="Example: hypersigma-train report demo/runs/spatial")
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder; the run may still go on.")],
    out: Annotated[Path | None, typer.Argument(help="Default: report.html in that folder.")] = None,
    as_json: Json = False,
) -> None:
    """Write a page about a run: curves, pace, pictures, config, environment, checkpoints."""

    def work() -> dict[str, Any]:
        from hypersigma import report as command

        return command.report(run, out)

    _report(work, as_json=as_json)


@app.command(epilog="Example: hypersigma-train scene salinas_a data")
def scene(
    name: Annotated[str, typer.Argument(help="A scene of configs/data, or a YAML file.")],
    root: Annotated[Path, typer.Argument(help="Folder of the public files.")] = Path("data"),
    as_json: Json = False,
) -> None:
    """Read a public scene as the tasks do; tell what was taken of which file, and what is in it."""

    def work() -> dict[str, Any]:
        from hypersigma.cubes import summary as command

        return command.scene(name, root)

    _report(work, as_json=as_json)


@app.command(
    epilog="Example: hypersigma-train slurm pretrain/spatial_base "
    "--nodes 4 --gpus-per-node 8 --time 1-00:00:00 --out job.sbatch"
)
def slurm(
    config: Config,
    nodes: Annotated[int, typer.Option(help="Machines.")],
    gpus_per_node: Annotated[int, typer.Option(help="GPUs of each, and processes on each.")],
    time: Annotated[str, typer.Option(help="Of one turn in the queue, as sbatch takes it.")],
    overrides: Overrides = None,
    partition: Annotated[str | None, typer.Option(help="SLURM's partition.")] = None,
    account: Annotated[str | None, typer.Option(help="SLURM's account.")] = None,
    out: Annotated[Path | None, typer.Option(help="A file; default: print it.")] = None,
) -> None:
    """Write an sbatch script that pretrains, and goes on after preemption and at its time limit."""

    def work() -> str:
        from hypersigma import slurm as command

        allocation = command.Allocation(nodes, gpus_per_node, time, partition, account)
        script = command.batch_script(str(config), overrides or (), allocation)
        if out is None:
            return script
        out.write_text(script, encoding="utf-8")
        return f"{out}: sbatch {out}\n"

    typer.echo(_done(work), nl=False)


@bench.command(
    "data", epilog="Example: hypersigma-train bench data pretrain/demo_spatial step_ms=100"
)
def bench_data(config: Config, overrides: Overrides = None, as_json: Json = False) -> None:
    """Measure how fast the batches of a pretraining config come, and how well they are mixed.

    Takes the config of `pretrain`, and: batches (that are measured), step_ms (what the device needs
    for one batch; says then which of the two waits for the other).
    """

    def work() -> dict[str, Any]:
        from hypersigma import bench as command

        return command.bench_data(configs.load(command.BenchDataConfig, config, overrides or ()))

    _report(work, as_json=as_json)


@bench.command(
    "tasks", epilog="Example: hypersigma-train bench tasks bench/tasks root=data processes=2"
)
def bench_tasks(config: Config, overrides: Overrides = None, as_json: Json = False) -> None:
    """Measure tasks by models and classical methods, over seeds: tables, figures, a page.

    What has been measured before is not measured again: the same command goes on.
    """

    def work() -> dict[str, Any]:
        from hypersigma.tables.config import TablesConfig
        from hypersigma.tables.runner import bench_tasks as command

        return command(configs.load(TablesConfig, config, overrides or ()))

    _report(work, as_json=as_json)


def _cube_task(config: Path, overrides: list[str] | None) -> str | None:
    """Return the task of the checkpoint that a config names, None if it is none on a cube."""
    from hypersigma import checkpoint

    named = configs.read(config, overrides or ()).get("checkpoint")
    if not isinstance(named, str):
        return None
    state = checkpoint.find(Path(named)).state
    return str(state["task"]) if "facts" in state else None


def _report(work: Callable[[], dict[str, Any]], *, as_json: bool) -> None:
    """Do the work and print what came out."""
    result = _done(work)
    if result:  # of several processes that train, the first one alone has one
        typer.echo(json.dumps(result, indent=1) if as_json else _text(result))


def _report_dry(work: Callable[[], dict[str, Any]], *, as_json: bool) -> None:
    """Do the work and print what a dry run found; 1 if something is in the way of a real one."""
    from hypersigma.dryrun import table

    result = _done(work)
    if result:
        typer.echo(json.dumps(result, indent=1) if as_json else table(result))
    if result.get("problems"):
        raise typer.Exit(FAILED)


def _done[T](work: Callable[[], T]) -> T:
    """Do the work and return what came out; exit with 1 if it failed, 2 if the config is wrong."""
    _log_to_stderr()
    from concurrent.futures.process import BrokenProcessPool

    from hypersigma.checkpoint import CheckpointError
    from hypersigma.runfolder import TrainError

    try:
        return work()
    except ConfigError as error:
        _fail(error, WRONG_USAGE)
    except BrokenProcessPool as error:
        _fail(RuntimeError(f"a process was killed ({error}); the same command goes on"), FAILED)
    except (CheckpointError, TrainError, OSError, ValueError, LookupError) as error:
        _fail(error, FAILED)


def _fail(error: Exception, code: int) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(code) from error


def _log_to_stderr() -> None:
    """Send log lines to stderr: through rich on a terminal, as plain lines elsewhere."""
    console = rich.console.Console(stderr=True)
    if console.is_terminal:
        handler: logging.Handler = rich.logging.RichHandler(console=console, show_path=False)
        form = "%(message)s"
    else:
        handler = logging.StreamHandler()
        form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, handlers=[handler], force=True)
    logging.getLogger("hypersigma").setLevel(logging.INFO)


def _text(result: dict[str, Any], indent: str = "") -> str:
    """Return the result as lines `name value`, sections indented; long lists are left out."""
    lines = []
    for name, value in result.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", _text(value, indent + "  ")]
        elif isinstance(value, list | tuple):
            continue
        elif isinstance(value, float):
            lines.append(f"{indent}{name} {value:.4f}")
        else:
            lines.append(f"{indent}{name} {value}")
    return "\n".join(lines)


if __name__ == "__main__":
    app()
