"""The command line. Importing it, and asking it for help, loads neither torch nor mlflow."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from ..training.interrupts import interruptible
from .arguments import (
    WORDS,
    KeepsWords,
    env_options,
    faults,
    hush_others,
    interval,
    parse_assignments,
    quiet_mlflow,
    seconds,
    show,
    without,
    write_all,
)
from .arguments import seeds as seed_range
from .completion import (
    complete_checkpoint,
    complete_env,
    complete_hyperparameter,
    complete_resume,
    complete_run,
)
from .export_command import export
from .inspect_commands import bench, check, config, inspect, list_
from .plot_command import plot
from .recipes import RECIPES
from .signals import ended_by, ends_with_parent, ignored_at_exit
from .sweep_command import sweep


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rlstack")
def main() -> None:
    """Train PPO policies on highly parallel, infinite-horizon environments.

    Tab completion, for bash: eval "$(_RLSTACK_COMPLETE=bash_source rlstack)"; for zsh and fish the same with
    zsh_source and fish_source.
    """
    write_all()
    hush_others()
    # Modules are found from the working directory too, after all that is installed.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


for _command in (sweep, check, inspect, config, list_, bench, export, plot):
    main.add_command(_command)


@main.command(
    cls=KeepsWords,
    short_help="Train a policy and save it.",
    epilog=f"Built-in names: {', '.join(RECIPES)}; rlstack config NAME lists all hyperparameters.\n\n"
    "\b\nExamples:\n"
    "  rlstack train cartpole\n"
    "  rlstack train pendulum horizon=128 'model_config.hiddens=[64,64]' --max-time 3m\n"
    "  rlstack train my_package.my_module:MyEnv num_envs=4096 --max-updates 500\n"
    "  rlstack train gym:Pendulum-v1 num_envs=64 --max-env-steps 1000000\n"
    "  rlstack train -f config.yaml env_config.mass=0.7\n"
    "  rlstack train --resume runs/cartpole-20260101-1 --max-time 10m",
)
@click.argument("env", metavar="[ENV]", required=False, shell_complete=complete_env)
@click.argument("hyperparameters", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=complete_hyperparameter)
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
    "--seeds",
    type=seed_range,
    metavar="RANGE",
    help="Train with each of some seeds, 0-9 or 0,3,7, and show all of them in a table and a picture.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, help="How many of --seeds at a time. [1]")
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to put results. [runs/<env>-<date>-<n>]",
)
@click.option(
    "--resume",
    metavar="auto|DIR",
    shell_complete=complete_resume,
    help="Go on with the run in DIR, from now on with each KEY that is given; auto: as it was, with that in "
    "--run-dir, or ENV's last one, if there is one.",
)
@click.option(
    "--checkpoint-every",
    type=interval,
    metavar="N|TIME",
    help="Write a checkpoint after every N updates, or every TIME: 90s, 10m, 2h. [5m]",
)
@click.option(
    "--on-nonfinite",
    type=click.Choice(["raise", "skip", "restore"]),
    help="After NaN or infinity: stop, skip what it was in, or go back to the last checkpoint. [raise]",
)
@click.option("--system-metrics", is_flag=True, default=None, help="Record the machine's load, too.")
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
    seeds: list[int] | None,
    jobs: int,
    run_dir: Path | None,
    resume: str | None,
    checkpoint_every: dict[str, Any] | None,
    on_nonfinite: str | None,
    system_metrics: bool | None,
    tracking: str | None,
) -> None:
    """Train a policy on ENV and save it.

    ENV is a built-in name, gym:Name of another package, module:Class or path/to/file.py:Class; a resumed run
    knows its own. A built-in one comes with hyperparameters that solve it, and training stops when it is
    solved; others are trained until a limit or Ctrl-C. KEY is a hyperparameter, or an option within one, with
    a dot: env_config.length=0.7.
    """
    quiet_mlflow()
    ignored_at_exit()
    with interruptible() as interrupt, faults(), ended_by(interrupt):
        ends_with_parent()
        from rich.console import Console

        from ..tracking.uris import absolute_uri
        from .goals import Limits
        from .run_config import RunConfig
        from .train import train

        if env is not None and "=" in env:
            if file is None and resume is None:
                raise click.UsageError(f"{env} is where ENV is expected: name the environment first")
            hyperparameters, env = (env, *hyperparameters), None
        for option, given in (("--algorithm", algorithm), ("--run-dir", run_dir)):
            if resume not in (None, "auto") and given is not None:
                raise click.UsageError(f"a resumed run has its own: leave out {option}")
        asked = RunConfig() if file is None else RunConfig.read(file, own_env=env is None)
        values = parse_assignments(hyperparameters)
        if seed is not None:
            values["seed"] = seed
        if tracking not in (None, "off"):
            os.environ["MLFLOW_TRACKING_URI"] = absolute_uri(tracking)
        asked = asked.with_changes(
            env=env,
            algorithm=algorithm,
            algorithm_config=values,
            checkpoint_config=checkpoint_every,
            trainer={
                "on_nonfinite": on_nonfinite,
                "system_metrics": system_metrics,
                "track": False if tracking == "off" else None,
            },
        )
        if seeds is not None:
            from .seeds import check_seeds, train_seeds

            check_seeds(asked, run_dir=run_dir, resume=resume)
            words = without(click.get_current_context().meta[WORDS], "--seeds", "--jobs", "--run-dir")
            sys.exit(train_seeds(words, asked, seeds, run_dir=run_dir, jobs=jobs, interrupt=interrupt))
        limits = Limits(max_updates=max_updates, max_env_steps=max_env_steps, max_time=max_time)
        where: dict[str, Any] = {"run_dir": run_dir, "resume": resume, "tracking": tracking}
        signum = train(asked, limits, **where, console=Console(), interrupt=interrupt)
        if signum is not None:
            sys.exit(128 + signum)


@main.command(
    name="eval",
    short_help="Judge a run's policy in fresh environments.",
    epilog="\b\nExamples:\n  rlstack eval runs/cartpole-20260101-1 --steps 500\n"
    "  rlstack eval runs/cartpole-20260101-1/checkpoints/ckpt-000000050 length=0.7 --json",
)
@click.argument(
    "checkpoint",
    metavar="CKPT",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    shell_complete=complete_checkpoint,
)
@click.argument("options", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--num-envs", type=click.IntRange(min=1), default=64, show_default=True, help="Environments.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of each. [10 horizons]")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the environments' chance."
)
@click.option(
    "--env",
    shell_complete=complete_env,
    help="The environment, if the run's config.yaml names one that can't be imported.",
)
@click.option("--device", default="auto", show_default=True, help="Where to simulate.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def evaluate(
    checkpoint: Path,
    env: str | None,
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
        from ..runs.evaluate import evaluate
        from .resolve_env import resolve

        result = evaluate(
            checkpoint,
            env_cls=None if env is None else resolve(env, {})[0],
            env_config=env_options(options),
            num_envs=num_envs,
            steps=steps,
            seed=seed,
            device=device,
        )
    show(result, as_json=as_json)


@main.command(
    short_help="Send to MLflow what tracking missed.",
    epilog="Example:\n\n  rlstack sync runs/cartpole-20260101-1",
)
@click.argument(
    "run",
    metavar="RUN",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    shell_complete=complete_run,
)
@click.option("--tracking", metavar="URI", help="Where to. [MLFLOW_TRACKING_URI, else a file here]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def sync(run: Path, tracking: str | None, as_json: bool) -> None:
    """Send to MLflow what is in a run's metrics.jsonl and MLflow hasn't got: nothing twice.

    Not while it is trained. Where it was tracked is remembered: if that is not where MLflow's settings point
    to, --tracking must say so.
    """
    quiet_mlflow()
    with faults():
        from ..runs.run_dir import locked
        from ..tracking.sync import sync
        from ..tracking.uris import absolute_uri

        if tracking is not None:
            os.environ["MLFLOW_TRACKING_URI"] = absolute_uri(tracking)
        with locked(run):
            found = sync(run, anywhere=tracking is not None)
    show({"run_id": found.run_id, "uri": found.uri, "status": found.status}, as_json=as_json)
