"""The command that writes a policy for other programs; importing it loads neither torch nor mlflow."""

from pathlib import Path

import click

from .arguments import faults, show
from .completion import complete_checkpoint


@click.command(
    short_help="Write a run's policy for programs without rlstack.",
    epilog="\b\nExamples:\n  rlstack export runs/cartpole-20260101-1 --to onnx\n"
    "  rlstack export runs/cartpole-20260101-1/checkpoints/ckpt-000000050 --to pt2 --output robot.pt2",
)
@click.argument(
    "checkpoint",
    metavar="CKPT",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    shell_complete=complete_checkpoint,
)
@click.option("--to", type=click.Choice(["onnx", "pt2"]), required=True, help="Kind of file.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to. [policy.KIND in the run]"
)
@click.option("--sample", is_flag=True, help="Draw actions at random, from random numbers as an input.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def export(checkpoint: Path, to: str, output: Path | None, sample: bool, as_json: bool) -> None:
    """Write a policy as an ONNX model or a torch.export program, and a page about its inputs and outputs.

    CKPT is a checkpoint, or a run: of that the best one is taken. What was written is compared with the
    policy on 100 random observations first.
    """
    with faults():
        if output is not None and output.suffix != f".{to}":
            raise click.UsageError(f"--output is {output}, expected a name that ends in .{to}")
        from ..runs.export import export

        result = export(checkpoint, to, output, deterministic=not sample)
    show(result, as_json=as_json)
