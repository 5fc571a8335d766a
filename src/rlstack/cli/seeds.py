"""`rlstack train --seeds`: one training with many seeds, each in a process of its own."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from rich.console import Console

from ..common.errors import HparamsError
from ..common.metrics import ENV_TOTAL_STEPS, EPISODE_STATS, EPISODES
from ..plots.runs import plot_runs
from ..runs.run_names import make_run_dir
from ..runs.saved_config import ALGORITHMS
from ..tracking.journal import JOURNAL, read_rows
from ..training.display import Screen
from ..training.interrupts import Interrupt
from .arguments import shown
from .children import Child, exit_code, run_children
from .parent import begin_parent, end_parent
from .resolve_env import resolve
from .results import drawn
from .run_config import RunConfig
from .tables import lines_of

_LONGEST_CURVE = 1000
"""Points of a curve."""


def check_seeds(asked: RunConfig, *, run_dir: Path | None, resume: str | None) -> None:
    """Refuse once what each of the trainings would refuse.

    Raises:
        HparamsError: With what to change.
    """
    if asked.env is None:
        raise HparamsError("there is no environment: name the one to train on with each of --seeds")
    if "seed" in asked.algorithm_config:
        raise HparamsError("seed is given beside --seeds: leave it out")
    if resume is not None and (resume != "auto" or run_dir is None):
        raise HparamsError(
            "to go on with --seeds, give --run-dir with the directory of all, and --resume auto"
        )
    _, hyperparameters = resolve(asked.env, asked.algorithm_config, asked.algorithm)
    ALGORITHMS[asked.algorithm].hparams_cls.parse(hyperparameters)


def train_seeds(
    words: Sequence[str],
    asked: RunConfig,
    seeds: Sequence[int],
    *,
    run_dir: Path | None,
    jobs: int,
    interrupt: Interrupt,
) -> int:
    """Train once with each seed; show what came of it, in a table and a picture; return the exit code.

    Args:
        words: Of `rlstack train`, without those of seeds and run directory.
        asked: What they ask for.
        seeds: Which.
        run_dir: Where the runs go; None makes a new directory under `runs`.
        jobs: How many at once.
        interrupt: What signals are noted in.
    """
    screen, name = Screen(Console()), asked.env or ""
    directory = make_run_dir(name) if run_dir is None else run_dir
    directory.mkdir(parents=True, exist_ok=True)
    parent = begin_parent(directory, {"env": name, "seeds": str(seeds)}) if asked.trainer.track else None
    codes = dict[int, int]()
    children = [
        Child(
            f"seed-{seed}",
            ["train", *words, "--seed", str(seed), "--run-dir", str(directory / f"seed-{seed}")],
            directory / f"seed-{seed}.log",
        )
        for seed in seeds
    ]

    def ended(child: Child, code: int) -> None:
        seed = int(child.name.rpartition("-")[2])
        codes[seed] = code
        screen.say(f"seed {seed}: {_end(directory, seed)}")

    screen.say(f"Training {name} with {len(seeds)} seeds in {directory}, {min(jobs, len(seeds))} at once.")
    is_whole = False
    try:
        signum = run_children(children, jobs, interrupt, ended)
        is_whole = signum is None and not any(codes.values())
    finally:
        if parent is not None:
            end_parent(parent, {}, {}, is_whole=is_whole)
    for line in _summary(directory, seeds):
        screen.say(line)
    if not is_whole:
        again = ["train", *words, "--seeds", ",".join(map(str, seeds)), "--run-dir", str(directory)]
        again += [] if "--resume" in words else ["--resume", "auto"]
        screen.say(f"To go on:       {shlex.join(['rlstack', *again])}")
    return exit_code(codes.values()) if signum is None else 128 + signum


def _end(directory: Path, seed: int) -> str:
    """Return the line of a run's log that says how it ended: the verdict, else the last one."""
    path = directory / f"seed-{seed}.log"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    verdicts = [line for line in lines if line.startswith(("Solved", "Done", "Interrupted"))]
    return (verdicts or lines or ["not begun"])[-1]


def _summary(directory: Path, seeds: Sequence[int]) -> list[str]:
    """Draw the runs that there are; return the table and where the picture is, as lines."""
    finals, rows, name = dict[Path, float](), [], "returns/mean"
    for seed in seeds:
        path = directory / f"seed-{seed}" / JOURNAL
        history = [row.metrics for row in read_rows(path, most=_LONGEST_CURVE)] if path.exists() else []
        if any(EPISODE_STATS[0] in stats for stats in history):
            name = f"{EPISODES}/returns/mean"
        values = [stats[name] for stats in history if not math.isnan(stats.get(name, math.nan))]
        last = history[-1] if history else {}
        steps = (int(last[key]) if key in last else None for key in ("algorithm/steps", ENV_TOTAL_STEPS))
        # Without what follows, which has been said when it ended.
        end = _end(directory, seed).removeprefix("rlstack: ").partition(": ")[0].partition(", after")[0]
        rows.append([seed, *steps, values[-1] if values else None, end])
        if values:
            finals[path.parent] = values[-1]
    lines = lines_of(["seed", "updates", "env steps", name, "end"], rows)
    if not finals:
        return lines
    all_ = finals.values()
    range_ = f"from {shown(min(all_))} to {shown(max(all_))}"
    lines.append(f"{name}: median {shown(median(all_))}, mean {shown(fmean(all_))}, {range_}")
    path, title = directory / "learning_curves.png", f"{directory.name}: {len(finals)} seeds"
    said = drawn(path, lambda: plot_runs(finals, path, stats=[name], title=title))
    return [*lines, f"Learning curves: {said}"]
