"""`rlstack sweep`: a search for better hyperparameters, on disk and gone on with by the same command."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.nested import flatten
from ..conditions import Condition
from ..distributed.ranks import ALONE
from ..plots.sweep import plot_importances, plot_slices
from ..runs.checkpoint import numbered
from ..runs.saved_config import read_config
from ..sweeps.attempt import Attempt
from ..sweeps.options import Range
from ..sweeps.study import Sweep
from ..sweeps.summary import TABLE, Row, importances, row_of, rows, spread, write_table
from ..sweeps.trial import run_dir_of, run_trial
from ..training.display import Screen
from ..training.interrupts import Interrupt
from ..training.trainer import Trainer
from .arguments import USAGE, shown
from .children import Child, exit_code, run_children
from .parent import begin_parent, end_parent
from .resolve_env import resolve
from .results import drawn, save_policy
from .run_config import RunConfig
from .sweep_file import SweepFile, config_in
from .tables import lines_of
from .train import begin, updates


def sweep(
    file: Path, directory: Path, *, jobs: int, tracking: str | None, screen: Screen, interrupt: Interrupt
) -> int:
    """Try what a file asks for, until all of it is tried; show what came of it, and return the exit code.

    Args:
        file: What is searched.
        directory: Where the sweep is; one that is there is gone on with.
        jobs: How many runs at once: more than one are processes of their own.
        tracking: `off`, or None; where to is up to MLflow's settings.
        screen: Where to say what happens.
        interrupt: What signals are noted in.

    Raises:
        HparamsError: If the file asks for what can't be.
        RunDirError: If the directory is another sweep's.
    """
    asked = SweepFile.read(file)
    asked.keep_in(directory)
    search = Sweep(directory, asked.config)
    search.reserve()
    parent = None
    if tracking != "off" and asked.asked.trainer.track:
        params = {key: str(value) for key, value in flatten({"sweep": asked.said["sweep"]}).items()}
        parent = begin_parent(directory, {"env": str(asked.asked.env), **params})
    codes: list[int] = []
    screen.say(f"Sweep of {asked.config.trials} trials in {directory}.")
    try:
        if jobs == 1:
            _work(asked, search, tracking=tracking, screen=screen, interrupt=interrupt)
        else:
            words = ["sweep", "-f", str(file), "--run-dir", str(directory), "--worker"]
            words += ["--tracking", "off"] if tracking == "off" else []
            children = [Child(f"worker {number}", words) for number in range(jobs)]
            run_children(children, jobs, interrupt, lambda _, code: codes.append(code))
    finally:
        found = rows(search)
        is_whole = not any(row.state in ("waiting", "running", "interrupted") for row in found)
        if parent is not None:
            end_parent(parent, *_best(found), is_whole=is_whole)
    report(directory, screen)
    if not is_whole:
        again = ["rlstack", "sweep", "-f", str(file), "--run-dir", str(directory), "--jobs", str(jobs)]
        again += [] if tracking is None else ["--tracking", tracking]
        screen.say(f"To go on:    {shlex.join(again)}")
    if interrupt.signum is not None:
        return 128 + interrupt.signum
    if is_whole:
        return 0 if found[0].state in ("complete", "pruned") else USAGE
    return exit_code(codes) or 1


def help_with(
    file: Path, directory: Path, *, tracking: str | None, screen: Screen, interrupt: Interrupt
) -> int:
    """Work at a sweep that another process has begun; return the exit code. Arguments as of `sweep`."""
    asked = SweepFile.read(file)
    search = Sweep(directory, asked.config)
    _work(asked, search, tracking=tracking, screen=screen, interrupt=interrupt)
    return 0 if interrupt.signum is None else 128 + interrupt.signum


def _work(
    asked: SweepFile, search: Sweep, *, tracking: str | None, screen: Screen, interrupt: Interrupt
) -> None:
    """Try what is left to try, in this process.

    Args:
        asked: What is searched.
        search: The sweep.
        tracking: As `sweep`.
        screen: Where to say what happens.
        interrupt: What signals are noted in.
    """
    run = asked.asked.with_changes(
        env=None,
        algorithm=None,
        algorithm_config={},
        checkpoint_config=None,
        trainer={"track": False if tracking == "off" else None},
    )

    def train(values: Mapping[str, Any], run_dir: Path, stop_conditions: Sequence[Condition]) -> bool:
        return _train(run, values, run_dir, stop_conditions)

    def attempt(made: Attempt) -> float | None:
        return run_trial(made, search.config, search.directory, train)

    def said(trial: int) -> None:
        row = row_of(search, trial)
        why = f": {row.fault}" if row.fault else ""
        screen.say(
            f"trial {trial} {row.state}{why}  {search.config.metric} {shown(row.value)}  {_point(row)}"
        )

    search.work(attempt, is_over=lambda: interrupt.signum is not None, said=said)


def _train(
    asked: RunConfig, values: Mapping[str, Any], run_dir: Path, stop_conditions: Sequence[Condition]
) -> bool:
    """Begin or go on with a run, and save its policy; return whether it was interrupted."""
    if numbered(run_dir / "checkpoints"):
        asked = asked.of_run(read_config(run_dir))
        trainer = Trainer.resume(
            run_dir.absolute(),
            env_cls=resolve(asked.env or "", {})[0],
            options=vars(asked.trainer),
            track=asked.trainer.track,
        )
    else:
        changed = asked.with_changes(
            env=None, algorithm=None, algorithm_config=values, checkpoint_config=None, trainer={}
        )
        trainer, _ = begin(changed, run_dir, ALONE)
    with trainer:
        for _ in updates(trainer, asked, [*stop_conditions, *(asked.stop_conditions or [])]):
            pass
        save_policy(trainer, run_dir / "policy.safetensors")
    return trainer.interrupted is not None


def report(directory: Path, screen: Screen) -> None:
    """Show what came of a sweep so far: its trials, the best one, and what mattered.

    Args:
        directory: Of the sweep.
        screen: Where to.

    Raises:
        RunDirError: If it is none.
    """
    config = config_in(directory)
    search = Sweep(directory, config)
    found = rows(search)
    write_table(found, config, directory / TABLE)
    names, several = [*config.dimensions()], len(config.seeds) > 1
    header = ["trial", "state", config.metric, *(["± std"] if several else []), *names]
    for line in lines_of(header, [_cells(row, names, several=several) for row in found]):
        screen.say(line)
    for row in found:
        if row.fault:
            screen.say(f"Trial {row.trial} failed: {row.fault}")
    screen.say(f"Table:       {directory / TABLE}")
    shares = importances(search)
    if shares:
        path, title = directory / "importance.png", f"{directory.name}: what mattered for {config.metric}"
        where = drawn(path, lambda: plot_importances(shares, title, path))
        screen.say(f"Importance:  {where}")
        slices = directory / "slices.png"
        screen.say(f"Slices:      {drawn(slices, lambda: _draw_slices(search, found, slices))}")
    if found and found[0].state == "complete":
        best = found[0]
        policy = run_dir_of(directory, best.trial, config.seeds[0]) / "policy.safetensors"
        screen.say(f"Best:        trial {best.trial}, {config.metric} {shown(best.value)}")
        screen.say(f"Its policy:  {policy}")
        screen.say(f"Its point:   {_point(best)}")
    else:
        screen.say("No trial is complete.")


def _best(found: Sequence[Row]) -> tuple[dict[str, float], dict[str, str]]:
    """Return metrics and tags that tell of the best trial, if there is one."""
    if not found or found[0].state != "complete" or found[0].value is None:
        return {}, {}
    tags = {f"best.{name}": str(value) for name, value in found[0].params.items()}
    return {"best": found[0].value, "best_trial": found[0].trial}, tags


def _cells(row: Row, names: Sequence[str], *, several: bool) -> list[Any]:
    """Return a line of the table."""
    deviation = [spread([*row.seeds.values()]) if len(row.seeds) > 1 else None] if several else []
    return [row.trial, row.state, row.value, *deviation, *(row.params.get(name) for name in names)]


def _point(row: Row) -> str:
    """Return what was tried as `rlstack train` takes it."""
    return shlex.join(f"{name}={value}" for name, value in row.params.items())


def _draw_slices(search: Sweep, found: Sequence[Row], path: Path) -> None:
    dimensions = search.config.dimensions()
    points = {
        name: [
            (row.params[name], row.value, row.state == "complete")
            for row in found
            if row.value is not None and name in row.params
        ]
        for name in dimensions
    }
    logarithmic = [name for name, of in dimensions.items() if isinstance(of, Range) and of.log]
    title = f"{search.directory.name}: {len(found)} trials"
    plot_slices(points, logarithmic, search.config.metric, title, path)
