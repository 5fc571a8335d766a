"""The commands that look at environments, runs and checkpoints, and change nothing.

Importing them, and asking them for help, loads neither torch nor mlflow.
"""

import json
import sys
from pathlib import Path

import click

from .arguments import ENVIRONMENT, env_options, faults, parse_assignments, seconds, show, shown
from .completion import complete_checkpoint, complete_env, complete_env_option, complete_hyperparameter
from .recipes import RECIPES


@click.command(
    short_help="Check whether an environment is what rlstack expects.",
    epilog="\b\nExamples:\n  rlstack check my_package.my_module:MyEnv mass=0.7\n"
    "  rlstack check path/to/file.py:MyEnv --num-envs 256 --json",
)
@click.argument("env", metavar="ENV", shell_complete=complete_env)
@click.argument("options", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=complete_env_option)
@click.option("--num-envs", type=click.IntRange(min=1), default=16, show_default=True, help="Simulations.")
@click.option("--steps", type=click.IntRange(min=1), default=32, show_default=True, help="Steps of each.")
@click.option("--device", default="auto", show_default=True, help="Where to simulate.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def check(env: str, options: tuple[str, ...], num_envs: int, steps: int, device: str, as_json: bool) -> None:
    """Check whether ENV is what rlstack expects, and measure how fast it is.

    ENV is that of `rlstack train`; KEY is one of its options. The exit code is 3 if there is something to be
    changed; a note is nothing that training would suffer from.
    """
    with faults():
        from ..env_check.report import check_env
        from .resolve_env import resolve

        env_cls, _ = resolve(env, {})
        config = env_options(options)
        report = check_env(env_cls, config=config, num_envs=num_envs, steps=steps, device=device)
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        for finding in report.findings:
            click.echo(f"{finding.level:<6} {finding.name:<13} {finding.said or finding.looked_at}")
        if report.transitions_per_second is not None:
            click.echo(f"Sound: {report.transitions_per_second:,.0f} transitions/s without a policy.")
            click.echo(f"{report.resets}.")
    if report.faults:
        sys.exit(ENVIRONMENT)


@click.command(
    short_help="Say what a checkpoint holds; runs no code of it.",
    epilog="\b\nExamples:\n  rlstack inspect runs/cartpole-20260101-1\n"
    "  rlstack inspect runs/cartpole-20260101-1/checkpoints/ckpt-000000050 --json",
)
@click.argument(
    "checkpoint",
    metavar="CKPT",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    shell_complete=complete_checkpoint,
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def inspect(checkpoint: Path, as_json: bool) -> None:
    """Verify a checkpoint and say what it holds; nothing that it names is imported.

    CKPT is a checkpoint, or a run: of that the best one is taken.
    """
    with faults():
        from ..runs.inspect import inspect

        result = inspect(checkpoint)
    show(result, as_json=as_json)


@click.command(
    short_help="Print a commented configuration file.",
    epilog="\b\nExample:\n  rlstack config cartpole > config.yaml && rlstack train -f config.yaml",
)
@click.argument("env", metavar="ENV", shell_complete=complete_env)
@click.option(
    "--algorithm", type=click.Choice(["feedforward", "recurrent"]), default="feedforward", show_default=True
)
def config(env: str, algorithm: str) -> None:
    """Print a configuration of ENV with every default and what it means."""
    with faults():
        from .config_template import default_config

        text = default_config(env, algorithm)
    click.echo(text, nl=False)


@click.command(name="list", short_help="List the built-in environments, and the runs there are.")
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
        from ..runs.run_names import runs
        from .config_template import environments

        found = {"environments": environments(), "runs": runs(directory)}
    if as_json:
        click.echo(json.dumps(found))
        return
    for entry in found["environments"]:
        click.echo(f"{entry['name']:<18} {entry['solved']}")
    for entry in found["runs"]:
        returns = shown(entry.get("returns/mean"))
        said = entry.get("fault") or f"{entry['updates']} updates, returns/mean {returns}"
        click.echo(f"{directory / entry['name']}  {said}")


@click.command(
    short_help="Measure how fast an environment trains, and what holds it back.",
    epilog=f"Built-in names: {', '.join(RECIPES)}.\n\n\b\nExamples:\n"
    "  rlstack bench cartpole --algorithm recurrent\n"
    "  rlstack bench my_package.my_module:MyEnv num_envs=4096 --json",
)
@click.argument("env", metavar="ENV", shell_complete=complete_env)
@click.argument("hyperparameters", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=complete_hyperparameter)
@click.option(
    "--time",
    "duration",
    type=seconds,
    default="5s",
    show_default=True,
    metavar="TIME",
    help="How long to measure.",
)
@click.option(
    "--algorithm", type=click.Choice(["feedforward", "recurrent"]), default="feedforward", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def bench(env: str, hyperparameters: tuple[str, ...], duration: float, algorithm: str, as_json: bool) -> None:
    """Measure how fast ENV trains, and what holds it back.

    ENV and KEY are those of `rlstack train`. Nothing is tracked and nothing is kept.
    """
    with faults():
        from ..runs.saved_config import ALGORITHMS
        from .bench import measure_speed
        from .resolve_env import resolve

        asked = resolve(env, parse_assignments(hyperparameters), algorithm)
        speed = measure_speed(*asked, algorithm_cls=ALGORITHMS[algorithm], seconds=duration)
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
    click.echo(f"  {'steps':<12} {speed.optimizer_steps}")
    click.echo(f"  {'memory':<12} {speed.memory / 2**20:,.0f} MiB at the peak")
    click.echo(speed.bottleneck)
