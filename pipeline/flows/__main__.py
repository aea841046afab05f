"""Run flows by themselves: `python -m pipeline.flows build|run|serve|deploy CONFIG`.

`hypersigma-data build --prefect`, `serve` and `deploy` start this in a process of its own, so that
nothing else of the pipeline knows Prefect.
"""

import argparse
import sys
from pathlib import Path

import configs
from pipeline.build import DatasetConfig
from pipeline.flows.server import prefect_server, quiet_defaults


def main() -> int:
    """Run one flow command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.flows", description=__doc__)
    parser.add_argument("command", choices=("build", "run", "serve", "deploy"))
    parser.add_argument("config", help="a dataset config, or the name of a shipped one")
    parser.add_argument("overrides", nargs="*", help="section.field=value")
    parser.add_argument("--json", action="store_true", help="print what the build did as JSON")
    args = parser.parse_args()
    quiet_defaults()
    if args.command == "serve":
        return serve(args.config, args.overrides)
    if args.command == "run":
        return run_once(args.config, args.overrides)
    if args.command == "deploy":
        from pipeline.flows.deploy import deploy

        return deploy(args.config, args.overrides)
    return build(args.config, args.overrides, as_json=args.json)


def build(config: str, overrides: list[str], *, as_json: bool) -> int:
    """Build the next version through the flow; 1 if a scene failed."""
    from pipeline.flows.build_dataset import ScenesFailedError, build_flow

    try:
        report = build_flow(config, overrides)
    except ScenesFailedError as error:
        report = error.report
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write((report.to_json() if as_json else report.to_markdown()) + "\n")
    return 1 if report.failures else 0


def run_once(config: str, overrides: list[str]) -> int:
    """Do now what the schedule would do; 1 if a scene failed or the version leaks."""
    from pipeline.flows.dataset import RunFailedError, dataset_flow

    path = str(Path(config).absolute()) if Path(config).is_file() else config
    try:
        version = dataset_flow(path, overrides)
    except (RunFailedError, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"the current version is {version}\n" if version else "no version yet\n")
    return 0


def serve(config: str, overrides: list[str]) -> int:
    """Register the dataset on its schedule and run it when due, until interrupted."""
    dataset = configs.load(DatasetConfig, config, overrides)
    with prefect_server():
        from pipeline.flows.dataset import ONE_AT_A_TIME, dataset_flow

        dataset_flow.serve(
            name=dataset.name,
            cron=dataset.schedule,
            parameters={"config_path": config, "overrides": overrides},
            global_limit=ONE_AT_A_TIME,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
