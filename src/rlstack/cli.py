"""The command line. Importing it, and asking it for help, loads neither torch nor mlflow."""

import ast
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .recipes import RECIPES

USAGE, ENVIRONMENT, NON_FINITE, INTERRUPTED = 2, 3, 4, 130
"""Exit codes: what the user wrote, what the environment did, what training did, and Ctrl-C."""


def _seconds(text: str) -> float:
    """Return the seconds that a text like 90, 90s, 10m or 2h means."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a time: use seconds, or 90s, 10m, 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rlstack")
def main() -> None:
    """Train PPO policies on highly parallel, infinite-horizon environments."""


@main.command(
    short_help="Train a policy and save it.",
    epilog=f"Built-in names: {', '.join(RECIPES)}.\n\nExamples:\n\n"
    "  rlstack train cartpole\n\n"
    "  rlstack train pendulum horizon=128 model_config.hiddens=[64,64] --max-time 3m\n\n"
    "  rlstack train my_package.my_module:MyEnv num_envs=4096 env_config.mass=0.7 --max-updates 500",
)
@click.argument("env", metavar="ENV")
@click.argument("hyperparameters", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--max-updates", type=click.IntRange(min=1), help="Stop after so many policy updates.")
@click.option("--max-env-steps", type=click.IntRange(min=1), help="Stop after so many environment steps.")
@click.option(
    "--max-time", type=_seconds, metavar="TIME", help="Stop after so long: seconds, or 90s, 10m, 2h."
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of all random numbers.")
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to put results. [runs/<env>-<date>-<n>]",
)
def train(
    env: str,
    hyperparameters: tuple[str, ...],
    max_updates: int | None,
    max_env_steps: int | None,
    max_time: float | None,
    seed: int | None,
    run_dir: Path | None,
) -> None:
    """Train a policy on ENV and save it.

    ENV is a built-in name or module:Class. A built-in one comes with hyperparameters that solve it, and
    training stops when it is solved; others are trained until a limit or Ctrl-C. KEY is a hyperparameter, or
    an option within one, with a dot: env_config.length=0.7.
    """
    # What MLflow says while it makes its database would tear the display apart.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with _faults():
        from rich.console import Console

        from .session import Limits, train

        values = parse_assignments(hyperparameters)
        if seed is not None:
            values["seed"] = seed
        limits = Limits(max_updates=max_updates, max_env_steps=max_env_steps, max_time=max_time)
        interrupted = train(env, values, limits, run_dir=run_dir, console=Console())
    if interrupted:
        sys.exit(INTERRUPTED)


@main.command(
    short_help="Measure how fast an environment trains, and what holds it back.",
    epilog=f"Built-in names: {', '.join(RECIPES)}.\n\nExamples:\n\n"
    "  rlstack bench cartpole\n\n"
    "  rlstack bench my_package.my_module:MyEnv num_envs=4096 --json",
)
@click.argument("env", metavar="ENV")
@click.argument("hyperparameters", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--time",
    "seconds",
    type=_seconds,
    default="5s",
    show_default=True,
    metavar="TIME",
    help="How long to measure.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def bench(env: str, hyperparameters: tuple[str, ...], seconds: float, as_json: bool) -> None:
    """Measure how fast ENV trains, and what holds it back.

    ENV and KEY are those of `rlstack train`. Nothing is tracked and nothing is kept.
    """
    with _faults():
        from .session import resolve
        from .speed import measure_speed

        speed = measure_speed(*resolve(env, parse_assignments(hyperparameters)), seconds=seconds)
    if as_json:
        click.echo(json.dumps(speed.as_dict()))
        return
    whole = speed.environment + speed.policy + speed.update
    click.echo(
        f"{speed.transitions_per_second:,.0f} transitions/s, a policy update every {1e3 * whole:,.1f} ms"
    )
    for name in ("environment", "policy", "update"):
        part = getattr(speed, name)
        click.echo(f"  {name:<12} {1e3 * part:9,.1f} ms  {part / whole:4.0%}")
    click.echo(f"  {'engine':<12} {speed.engine}, {speed.start_up:.1f} s to start up")
    click.echo(f"  {'memory':<12} {speed.memory / 2**20:,.0f} MiB at the peak")
    click.echo(speed.bottleneck)


@contextmanager
def _faults() -> Iterator[None]:
    """Say in a sentence what went wrong, and exit with its code."""
    from .data import NonFiniteError
    from .env.base import EnvError
    from .hparams import HparamsError

    try:
        yield
    except (HparamsError, click.UsageError) as error:
        _fail(str(error), USAGE)
    except EnvError as error:
        _fail(str(error), ENVIRONMENT)
    except NonFiniteError as error:
        _fail(str(error), NON_FINITE)
    except OSError as error:
        _fail(f"the run directory can't be used: {error}", USAGE)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Return `key=value` texts as nested options; values are JSON or Python literals, else text.

    Raises:
        click.UsageError: If a text is no assignment, or a key is given twice.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        *path, last = key.split(".")
        if not separator or not all((*path, last)):
            raise click.UsageError(f"{assignment!r} is not of the form key=value")
        options = values
        for part in path:
            options = options.setdefault(part, {})
            if not isinstance(options, dict):
                raise click.UsageError(f"{key} is given both as a value and as options")
        if last in options:
            raise click.UsageError(f"{key} is given twice")
        options[last] = _parse_value(text)
    return values


def _parse_value(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def _fail(message: str, code: int) -> None:
    click.echo(f"rlstack: {message}", err=True)
    sys.exit(code)
