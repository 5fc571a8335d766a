"""The command that draws runs; importing it loads neither torch nor mlflow."""

from importlib.util import find_spec
from pathlib import Path

import click

from .arguments import faults
from .completion import complete_run


@click.command(
    short_help="Draw one or more runs in one picture.",
    epilog="\b\nExamples:\n  rlstack plot runs/cartpole-20260101-1 runs/cartpole-20260101-2\n"
    "  rlstack plot runs/cartpole-20260101-1 --stat losses/vf --stat monitors/kl_div --output losses.svg",
)
@click.argument(
    "runs",
    metavar="RUN...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    shell_complete=complete_run,
)
@click.option("--stat", "stats", multiple=True, help="What to draw, any number of times. [mean returns]")
@click.option(
    "--x",
    type=click.Choice(["steps", "updates", "seconds"]),
    default="steps",
    show_default=True,
    help="Over what: environment steps, updates, or seconds of collecting and updating.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="curves.png",
    show_default=True,
    help="The picture, a PNG or SVG.",
)
def plot(runs: tuple[Path, ...], stats: tuple[str, ...], x: str, output: Path) -> None:
    """Draw statistics of runs, read from their metrics.jsonl.

    RUN is a run directory, or a directory of them, such as `rlstack train --seeds` leaves. Runs that differ
    in nothing but their seed are one curve: their median, and their range as an area.
    """
    with faults():
        if output.suffix.lower() not in (".png", ".svg"):
            raise click.UsageError(f"--output is {output}, expected a name that ends in .png or .svg")
        if find_spec("matplotlib") is None:
            raise click.UsageError("drawing needs matplotlib: pip install 'rlstack[viz]'")
        from ..plots.runs import plot_runs

        groups = plot_runs(runs, output, stats=stats, x=x)  # type: ignore[arg-type]
    for name, members in groups.items():
        click.echo(f"{name}: {', '.join(map(str, members))}")
    click.echo(f"Picture: {output}")
