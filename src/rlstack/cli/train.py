"""One `rlstack train`: from an environment's name to files in a run directory."""

import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ..common.errors import HparamsError
from ..common.metrics import ENV_TOTAL_STEPS
from ..common.types import Stats
from ..conditions import Condition, any_of
from ..distributed.ranks import Ranks, join
from ..runs.checkpoint import numbered
from ..runs.run_names import make_run_dir, runs_of
from ..runs.saved_config import ALGORITHMS, read_config
from ..training.display import Screen, shown
from ..training.interrupts import Interrupt
from ..training.trainer import Trainer
from .goals import Limits, goal_of, verdict
from .recipes import RECIPES
from .resolve_env import resolve
from .results import draw_curve, log_model, run_dir_of, save_policy, where_tracked
from .run_config import RunConfig


def train(
    asked: RunConfig,
    limits: Limits,
    *,
    run_dir: Path | None,
    resume: str | None,
    console: Console,
    interrupt: Interrupt,
    tracking: str | None = None,
) -> int | None:
    """Train on an environment until it is solved or a limit is reached, and leave the run on disk.

    What can't be shown, drawn or logged is said in a line; the run goes on without it.

    Args:
        asked: What to train, and how; a resumed run keeps what isn't asked for.
        limits: When to stop at the latest.
        run_dir: Where to; None makes a new directory under `runs`.
        resume: The directory of the run to go on with, or `auto`; None begins a new one.
        console: Where to say what happens.
        interrupt: What signals are noted in, from before the imports to the last line.
        tracking: The option `--tracking` as it was given, for the command that goes on.

    Returns:
        The signal that ended it, or that came while it ended; None if none did.

    Raises:
        HparamsError: If the environment's name or a hyperparameter can't be.
        RunDirError, CheckpointError: If the run can't be resumed.
        EnvError, NonFiniteError: As training raises them.
    """
    ranks = join()
    # Rank 0 speaks, and writes what is left behind.
    console.quiet = console.quiet or ranks.index > 0
    screen = Screen(console)
    if ranks.many:
        screen.say(f"{ranks.count} ranks train one policy.{_restarts(resume)}")
    directory = (
        None if resume is None else _same_for_all(ranks, lambda: _directory_of(asked, run_dir, resume))
    )
    # A run that was asked to go on in an environment may not find its own.
    given = [] if directory is None or asked.env is None else [asked.env]
    if directory is None:
        trainer, directory = begin(asked, run_dir, ranks)
    else:
        # The command with auto is the one that begins the run: it asks for what that began with.
        trainer, asked = _go_on(asked, directory, screen, changes=resume != "auto")
    solved = goal_of(asked.env, trainer) if asked.stop_conditions is None else None
    name = asked.env or directory.resolve().name
    if solved is not None:
        screen.say(f"Training {name} until {solved.recipe.goal}.")
    conditions = [*limits.conditions(), *(asked.stop_conditions or []), *([solved] if solved else [])]
    last: Stats = {}
    start = time.monotonic()
    try:
        if interrupt.signum is not None:
            # What was imported or made has swallowed its KeyboardInterrupt.
            raise KeyboardInterrupt
        for stats in shown(updates(trainer, asked, conditions), name, any_of(conditions), screen):
            last = stats
    finally:
        # Whatever happened, what was learned so far is kept.
        policy_at = save_policy(trainer, directory / "policy.safetensors") if last and not ranks.index else ""
        trainer.close()
    if ranks.index:
        return trainer.interrupted or interrupt.signum
    screen.say(verdict(solved, trainer, time.monotonic() - start))
    if last:
        screen.say(f"Policy:         {policy_at}")
        title = f"{name}: {last[ENV_TOTAL_STEPS]:,.0f} steps, {trainer.steps} updates"
        for line in _left_behind(trainer, directory, title, interrupt):
            screen.say(line)
        again = ["rlstack", "train", *given, "--resume", str(directory)]
        again += [] if tracking is None else ["--tracking", tracking]
        screen.say(f"To go on:       {shlex.join(again)}")
    return trainer.interrupted or interrupt.signum


def _same_for_all(ranks: Ranks, find: Callable[[], Path | None]) -> Path | None:
    """Return the directory that rank 0 finds."""
    if not ranks.many:
        return find()
    found = None if ranks.index else find()
    said = ranks.agree("run directory", {"path": None if found is None else str(found.absolute())})["path"]
    return None if said is None else Path(said)


def _restarts(resume: str | None) -> str:
    """Return what is to be said of what a launcher does after a failure; nothing if all is well."""
    most = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if most == "0" or resume == "auto":
        return ""
    return " After a restart they would begin anew: give --run-dir DIR and --resume auto."


def begin(asked: RunConfig, run_dir: Path | None, ranks: Ranks) -> tuple[Trainer, Path]:
    """Return a trainer, and the directory of its new run.

    Raises:
        HparamsError, RunDirError, EnvError: As `train`.
    """
    if asked.env is None:
        raise HparamsError(f"there is no environment: give module:Class, or one of {', '.join(RECIPES)}")
    home = None if run_dir is None else run_dir.absolute()
    env_cls, algorithm_config = resolve(asked.env, asked.algorithm_config, asked.algorithm)
    name = asked.env
    directory = run_dir or _same_for_all(ranks, lambda: make_run_dir(name))
    assert directory is not None
    home = home or directory.absolute()
    try:
        trainer = Trainer(
            env_cls,
            algorithm_cls=ALGORITHMS[asked.algorithm],
            algorithm_config=algorithm_config,
            run_dir=home,
            checkpoint_config=asked.trainer.checkpoint_config,
            on_nonfinite=asked.trainer.on_nonfinite,
            system_metrics=asked.trainer.system_metrics,
            track=asked.trainer.track,
        )
        run_dir_of(trainer).describe_training(vars(asked.trainer), asked.said_to_stop)
    except BaseException:
        # What can't be trained leaves nothing on disk.
        for empty in (home, home.parent) if run_dir is None else ():
            with suppress(OSError):
                empty.rmdir()
        raise
    return trainer, directory


def _go_on(asked: RunConfig, directory: Path, screen: Screen, *, changes: bool) -> tuple[Trainer, RunConfig]:
    """Return a trainer that goes on with a run, and what is asked for with what the run says of it.

    Args:
        asked: What is asked for.
        directory: The run's.
        screen: Where to say what becomes of that.
        changes: Whether the run goes on with the hyperparameters that are asked for, else they are ignored.
    """
    said = read_config(directory)
    differences, ignored = asked.differences(said, directory), []
    if not changes:
        asked, differences, ignored = replace(asked, algorithm_config={}), [], differences
    # That of the default can't be told from none.
    if asked.algorithm not in (said["algorithm"], RunConfig.algorithm):
        ignored.append(f"algorithm={asked.algorithm}")
    asked = asked.of_run(said)
    trainer = Trainer.resume(
        directory.absolute(),
        env_cls=None if asked.env is None else resolve(asked.env, {})[0],
        algorithm_config=asked.algorithm_config,
        options=vars(asked.trainer),
        track=asked.trainer.track,
    )
    but = f" but {', '.join(differences)}" if differences else ""
    screen.say(f"Going on with {directory} after {trainer.steps} updates, with its hyperparameters{but}.")
    if ignored:
        screen.say(f"Ignored, since the run has its own: {', '.join(ignored)}.")
    return trainer, asked


def _directory_of(asked: RunConfig, run_dir: Path | None, resume: str) -> Path | None:
    """Return the directory of the run to go on with; None if `auto` finds none."""
    if resume != "auto":
        return Path(resume)
    runs = runs_of(asked.env) if asked.env and run_dir is None else []
    directory = runs[-1] if runs else run_dir
    return directory if directory is not None and numbered(directory / "checkpoints") else None


def updates(trainer: Trainer, asked: RunConfig, conditions: list[Condition]) -> Iterator[Stats]:
    """Train as is asked for, and yield the statistics after every update."""
    return trainer.updates(
        env_config=asked.trainer.env_config,
        eval_env_config=asked.trainer.eval_env_config,
        steps_per_eval=asked.trainer.steps_per_eval,
        stop_conditions=conditions,
    )


def _left_behind(trainer: Trainer, directory: Path, title: str, interrupt: Interrupt) -> Iterator[str]:
    """Draw and log what the run leaves beside its policy; yield a line for each."""
    yield f"Learning curve: {draw_curve(title, trainer, directory)}"
    yield f"Tracked run:    {where_tracked(trainer)}"
    interrupted = trainer.interrupted is not None or interrupt.signum is not None
    if model := log_model(trainer, interrupted=interrupted):
        yield f"Tracked model:  {model}"
