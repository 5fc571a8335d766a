"""The command line. Importing it, and asking it for help, loads neither torch nor mlflow."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from .console import faults, interval, parse_assignments, seconds, show
from .recipes import RECIPES


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rlstack")
def main() -> None:
    """Train PPO policies on highly parallel, infinite-horizon environments."""


@main.command(
    short_help="Train a policy and save it.",
    epilog=f"Built-in names: {', '.join(RECIPES)}.\n\nExamples:\n\n"
    "  rlstack train cartpole\n\n"
    "  rlstack train pendulum horizon=128 model_config.hiddens=[64,64] --max-time 3m\n\n"
    "  rlstack train my_package.my_module:MyEnv num_envs=4096 env_config.mass=0.7 --max-updates 500\n\n"
    "  rlstack train --resume runs/cartpole-20260101-1 --max-time 10m",
)
@click.argument("env", metavar="[ENV]", required=False)
@click.argument("hyperparameters", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML or JSON with the keys env, algorithm, algorithm_config, stop_conditions and trainer.",
)
@click.option(
    "--algorithm", type=click.Choice(["feedforward", "recurrent"]), help="Kind of policy. [feedforward]"
)
@click.option("--max-updates", type=click.IntRange(min=1), help="Stop after so many policy updates.")
@click.option("--max-env-steps", type=click.IntRange(min=1), help="Stop after so many environment steps.")
@click.option(
    "--max-time", type=seconds, metavar="TIME", help="Stop after so long: seconds, or 90s, 10m, 2h."
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of all random numbers.")
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to put results. [runs/<env>-<date>-<n>]",
)
@click.option(
    "--resume",
    metavar="auto|DIR",
    help="Go on with the run in DIR; auto: with the one in --run-dir, or ENV's last one, if there is one.",
)
@click.option(
    "--checkpoint-every",
    type=interval,
    metavar="N|TIME",
    help="Write a checkpoint after every N updates, or every TIME: 90s, 10m, 2h. [5m]",
)
@click.option(
    "--tracking",
    metavar="URI|off",
    help="Where to track with MLflow. [MLFLOW_TRACKING_URI, else a file in the working directory]",
)
def train(
    env: str | None,
    hyperparameters: tuple[str, ...],
    file: Path | None,
    algorithm: str | None,
    max_updates: int | None,
    max_env_steps: int | None,
    max_time: float | None,
    seed: int | None,
    run_dir: Path | None,
    resume: str | None,
    checkpoint_every: dict[str, Any] | None,
    tracking: str | None,
) -> None:
    """Train a policy on ENV and save it.

    ENV is a built-in name or module:Class; a resumed run knows its own. A built-in one comes with
    hyperparameters that solve it, and training stops when it is solved; others are trained until a limit or
    Ctrl-C. KEY is a hyperparameter, or an option within one, with a dot: env_config.length=0.7.
    """
    # What MLflow says while it makes its database would tear the display apart.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with faults():
        from rich.console import Console

        from .run_config import RunConfig
        from .session import Limits, train

        if env is not None and "=" in env:
            if file is None and resume is None:
                raise click.UsageError(f"{env} is where ENV is expected: name the environment first")
            hyperparameters, env = (env, *hyperparameters), None
        asked = RunConfig() if file is None else RunConfig.read(file)
        values = parse_assignments(hyperparameters)
        if seed is not None:
            values["seed"] = seed
        if tracking not in (None, "off"):
            os.environ["MLFLOW_TRACKING_URI"] = tracking
        asked = asked.with_changes(
            env=env,
            algorithm=algorithm,
            algorithm_config=values,
            checkpoint_config=checkpoint_every,
            track=False if tracking == "off" else None,
        )
        limits = Limits(max_updates=max_updates, max_env_steps=max_env_steps, max_time=max_time)
        signum = train(asked, limits, run_dir=run_dir, resume=resume, console=Console())
    if signum is not None:
        sys.exit(128 + signum)


@main.command(
    name="eval",
    short_help="Judge a run's policy in fresh environments.",
    epilog="Examples:\n\n  rlstack eval runs/cartpole-20260101-1 --steps 500\n\n"
    "  rlstack eval runs/cartpole-20260101-1/checkpoints/ckpt-000000050 length=0.7 --json",
)
@click.argument("checkpoint", metavar="CKPT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("options", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--num-envs", type=click.IntRange(min=1), default=64, show_default=True, help="Environments.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of each. [the run's horizon]")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the environments' chance."
)
@click.option("--device", default="auto", show_default=True, help="Where to simulate.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def evaluate(
    checkpoint: Path,
    options: tuple[str, ...],
    num_envs: int,
    steps: int | None,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Judge a policy in fresh environments, acting without chance.

    CKPT is a checkpoint, or a run: of that the best one is taken. KEY is an option of the environment that is
    to differ from the run's.
    """
    with faults():
        from .inspection import evaluate

        config = parse_assignments(options)
        result = evaluate(
            checkpoint, env_config=config, num_envs=num_envs, steps=steps, seed=seed, device=device
        )
    show(result, as_json=as_json)


@main.command(
    short_help="Say what a checkpoint holds; runs no code of it.",
    epilog="Examples:\n\n  rlstack inspect runs/cartpole-20260101-1\n\n"
    "  rlstack inspect runs/cartpole-20260101-1/checkpoints/ckpt-000000050 --json",
)
@click.argument("checkpoint", metavar="CKPT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def inspect(checkpoint: Path, as_json: bool) -> None:
    """Verify a checkpoint and say what it holds; nothing that it names is imported.

    CKPT is a checkpoint, or a run: of that the best one is taken.
    """
    with faults():
        from .inspection import inspect

        result = inspect(checkpoint)
    show(result, as_json=as_json)


@main.command(
    short_help="Print a commented configuration file.",
    epilog="Example:\n\n  rlstack config cartpole > config.yaml && rlstack train -f config.yaml",
)
@click.argument("env", metavar="ENV")
@click.option(
    "--algorithm", type=click.Choice(["feedforward", "recurrent"]), default="feedforward", show_default=True
)
def config(env: str, algorithm: str) -> None:
    """Print a configuration of ENV with every default and what it means."""
    with faults():
        from .listing import default_config

        text = default_config(env, algorithm)
    click.echo(text, nl=False)


@main.command(name="list", short_help="List the built-in environments, and the runs there are.")
@click.option(
    "--runs",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default="runs",
    show_default=True,
    help="Where to look for runs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def list_(directory: Path, as_json: bool) -> None:
    """List the built-in environments, and the runs there are."""
    with faults():
        from .listing import environments, runs

        found = {"environments": environments(), "runs": runs(directory)}
    if as_json:
        click.echo(json.dumps(found))
        return
    for entry in found["environments"]:
        click.echo(f"{entry['name']:<18} {entry['solved']}")
    for entry in found["runs"]:
        said = entry.get("fault") or f"{entry['updates']} updates, returns/mean {entry.get('returns/mean')}"
        click.echo(f"{directory / entry['name']}  {said}")


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
    "duration",
    type=seconds,
    default="5s",
    show_default=True,
    metavar="TIME",
    help="How long to measure.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def bench(env: str, hyperparameters: tuple[str, ...], duration: float, as_json: bool) -> None:
    """Measure how fast ENV trains, and what holds it back.

    ENV and KEY are those of `rlstack train`. Nothing is tracked and nothing is kept.
    """
    with faults():
        from .names import resolve
        from .speed import measure_speed

        speed = measure_speed(*resolve(env, parse_assignments(hyperparameters)), seconds=duration)
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
