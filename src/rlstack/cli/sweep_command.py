"""The command `rlstack sweep`. Importing it, and asking it for help, loads neither torch nor mlflow."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ..training.interrupts import interruptible
from .arguments import faults, quiet_mlflow
from .signals import ended_by, ends_with_parent, ignored_at_exit


@click.command(
    short_help="Search for better hyperparameters.",
    epilog="\b\nExamples:\n  rlstack sweep -f sweep.yaml --jobs 2\n  rlstack sweep --report runs/sweep",
)
@click.option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML or JSON: what rlstack train -f takes, and a section sweep.",
)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the sweep is, or goes. [runs/<name of the file>]",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="How many runs at a time."
)
@click.option(
    "--tracking",
    metavar="URI|off",
    help="Where to track with MLflow. [MLFLOW_TRACKING_URI, else a file in the working directory]",
)
@click.option(
    "--report",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Show what came of the sweep in DIR so far, and train nothing.",
)
@click.option("--worker", is_flag=True, hidden=True, help="Work at a sweep that another process has begun.")
def sweep(
    file: Path | None,
    run_dir: Path | None,
    jobs: int,
    tracking: str | None,
    report: Path | None,
    worker: bool,
) -> None:
    """Search for better hyperparameters, by Optuna.

    The same command goes on with a sweep that was stopped or killed: trials that were at work go on from
    their last checkpoints. It may also be given several times at once.
    """
    quiet_mlflow()
    if (file is None) == (report is None):
        raise click.UsageError("give a file, -f sweep.yaml, or --report with the directory of a sweep")
    ignored_at_exit()
    with interruptible() as interrupt, faults(), ended_by(interrupt):
        ends_with_parent()
        if find_spec("optuna") is None:
            raise click.UsageError("a sweep needs Optuna: pip install 'rlstack[sweep]'")
        from rich.console import Console

        from ..tracking.uris import absolute_uri
        from ..training.display import Screen
        from . import sweep as sweeps

        screen = Screen(Console())
        if tracking not in (None, "off"):
            os.environ["MLFLOW_TRACKING_URI"] = absolute_uri(tracking)
        if file is None:
            assert report is not None
            sweeps.report(report, screen)
            return
        directory = Path("runs") / file.stem if run_dir is None else run_dir
        how: dict[str, Any] = {"tracking": tracking, "screen": screen, "interrupt": interrupt}
        if worker:
            code = sweeps.help_with(file, directory, **how)
        else:
            code = sweeps.sweep(file, directory, jobs=jobs, **how)
        if code:
            sys.exit(code)
