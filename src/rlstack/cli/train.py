"""One `rlstack train`: from an environment's name to files in a run directory."""

import shlex
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ..common.errors import HparamsError, TrackingError, told
from ..common.metrics import ENV_TOTAL_STEPS
from ..common.types import Stats
from ..conditions import Condition, HitsUpperBound, TimesOut
from ..plots.learning_curve import plot_learning_curve
from ..runs.checkpoint import numbered
from ..runs.run_dir import RunDir
from ..runs.run_names import make_run_dir, runs_of
from ..runs.saved_config import ALGORITHMS, read_config
from ..tracking.journal import JOURNAL, read_rows
from ..tracking.mlflow_model import log_policy
from ..training.trainer import Trainer
from .display import Display, Screen
from .goal import Solved, goal_of
from .recipes import RECIPES
from .resolve_env import resolve
from .run_config import RunConfig

_STEPS = "algorithm/steps"

_LONGEST_CURVE = 4000
"""Updates in a learning curve; of more, every second, or third, and so on, is drawn."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to stop at the latest; None is no limit."""

    max_updates: int | None = None
    max_env_steps: int | None = None
    max_time: float | None = None
    """s."""

    def conditions(self) -> list[Condition]:
        """Return a stop condition for each limit."""
        conditions: list[Condition] = []
        if self.max_updates is not None:
            conditions.append(HitsUpperBound(_STEPS, self.max_updates))
        if self.max_env_steps is not None:
            conditions.append(HitsUpperBound(ENV_TOTAL_STEPS, self.max_env_steps))
        if self.max_time is not None:
            conditions.append(TimesOut(self.max_time))
        return conditions

    def share(self, stats: Stats, seconds: float) -> float | None:
        """Return how much of the run is over, from 0 to 1; None without a limit."""
        parts = [
            done / limit
            for done, limit in (
                (stats[_STEPS], self.max_updates),
                (stats[ENV_TOTAL_STEPS], self.max_env_steps),
                (seconds, self.max_time),
            )
            if limit
        ]
        return min(max(parts), 1.0) if parts else None


def train(
    asked: RunConfig,
    limits: Limits,
    *,
    run_dir: Path | None,
    resume: str | None,
    console: Console,
    tracking: str | None = None,
) -> int | None:
    """Train on an environment until it is solved or a limit is reached, and leave the run on disk.

    What can't be shown, drawn or logged is said in a line; the run goes on without it.

    Args:
        asked: What to train, and how; a resumed run keeps its hyperparameters and checkpoint options.
        limits: When to stop at the latest.
        run_dir: Where to; None makes a new directory under `runs`.
        resume: The directory of the run to go on with, or `auto`; None begins a new one.
        console: Where to say what happens.
        tracking: The option `--tracking` as it was given, for the command that goes on.

    Returns:
        The signal that ended it, None if none did.

    Raises:
        HparamsError: If the environment's name or a hyperparameter can't be.
        RunDirError, CheckpointError: If the run can't be resumed.
        EnvError, NonFiniteError: As training raises them.
    """
    screen = Screen(console)
    directory = None if resume is None else _directory_of(asked, run_dir, resume)
    if directory is None:
        trainer, directory = _begin(asked, run_dir)
    else:
        said = read_config(directory)
        ignored = asked.ignored_by(said, directory)
        asked = asked.of_run(said)
        trainer = _go_on(asked, directory)
        steps = trainer.steps
        screen.say(f"Going on with {directory} after {steps} updates, with its hyperparameters.")
        if ignored:
            screen.say(f"Ignored, since the run has its own: {', '.join(ignored)}.")
    solved = goal_of(asked.env, trainer) if asked.stop_conditions is None else None
    name = asked.env or directory.name
    if solved is not None:
        screen.say(f"Training {name} until {solved.recipe.goal}.")
    conditions = [*limits.conditions(), *(asked.stop_conditions or []), *([solved] if solved else [])]
    last: Stats = {}
    start = time.monotonic()
    try:
        with Display(screen, name) as display:
            for last in trainer.updates(
                env_config=asked.trainer.env_config,
                eval_env_config=asked.trainer.eval_env_config,
                steps_per_eval=asked.trainer.steps_per_eval,
                stop_conditions=conditions,
            ):
                display.show(last, limits.share(last, time.monotonic() - start))
    finally:
        # Whatever happened, what was learned so far is kept.
        policy_at = _save(trainer, directory / "policy.safetensors") if last else ""
        trainer.close()
    seconds = time.monotonic() - start
    screen.say(_verdict(solved, trainer, seconds))
    if last:
        screen.say(f"Policy:         {policy_at}")
        title = f"{name}: {last[ENV_TOTAL_STEPS]:,.0f} steps, {trainer.steps} updates"
        screen.say(f"Learning curve: {_draw(title, trainer, directory)}")
        screen.say(f"Tracked run:    {_where_tracked(trainer)}")
        if trainer.interrupted is None and (model := _log_model(trainer)):
            screen.say(f"Tracked model:  {model}")
        again = ["rlstack", "train", "--resume", str(directory)]
        again += [] if tracking is None else ["--tracking", tracking]
        screen.say(f"To go on:       {shlex.join(again)}")
    return trainer.interrupted


def _begin(asked: RunConfig, run_dir: Path | None) -> tuple[Trainer, Path]:
    """Return a trainer, and the directory of its new run."""
    if asked.env is None:
        raise HparamsError(f"there is no environment: give module:Class, or one of {', '.join(RECIPES)}")
    home = None if run_dir is None else run_dir.absolute()
    env_cls, algorithm_config = resolve(asked.env, asked.algorithm_config, asked.algorithm)
    directory = make_run_dir(asked.env) if run_dir is None else run_dir
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
        _run_dir(trainer).describe_training(vars(asked.trainer), asked.said_to_stop)
    except BaseException:
        # What can't be trained leaves nothing on disk.
        for empty in (home, home.parent) if run_dir is None else ():
            with suppress(OSError):
                empty.rmdir()
        raise
    return trainer, directory


def _go_on(asked: RunConfig, directory: Path) -> Trainer:
    """Return a trainer that goes on with a run."""
    home = directory.absolute()
    env_cls = None if asked.env is None else resolve(asked.env, {})[0]
    return Trainer.resume(home, env_cls=env_cls, options=vars(asked.trainer), track=asked.trainer.track)


def _directory_of(asked: RunConfig, run_dir: Path | None, resume: str) -> Path | None:
    """Return the directory of the run to go on with; None if `auto` finds none."""
    if resume != "auto":
        if asked.algorithm_config:
            given = ", ".join(asked.algorithm_config)
            raise HparamsError(f"a resumed run keeps its hyperparameters: leave out {given}")
        return Path(resume)
    runs = runs_of(asked.env) if asked.env and run_dir is None else []
    directory = runs[-1] if runs else run_dir
    return directory if directory is not None and numbered(directory / "checkpoints") else None


def _verdict(solved: Solved | None, trainer: Trainer, seconds: float) -> str:
    end = "Interrupted" if trainer.interrupted else "Done"
    if solved is not None:
        is_solved = solved.look()
        end = "Solved" if is_solved else f"{end}, not solved"
        end += f": {solved.recipe.goal} (score {solved.score:.4g})"
    return f"{end}, after {trainer.steps} updates and {seconds:.0f} s."


def _run_dir(trainer: Trainer) -> RunDir:
    """Return its run directory; its path is from the root, environments may go elsewhere."""
    assert trainer.run_dir is not None
    return trainer.run_dir


def _save(trainer: Trainer, path: Path) -> str:
    """Save the policy; return where it is, or why it isn't anywhere."""
    try:
        trainer.algorithm.policy.save(_run_dir(trainer).path / path.name)
    except Exception as error:
        # Whatever it is, it mustn't hide why training ended.
        return f"not saved, {told(error)}"
    return str(path)


def _draw(title: str, trainer: Trainer, directory: Path) -> str:
    """Draw the learning curve of the whole run; return where it is, or why there is none."""
    path, home = directory / "learning_curve.png", _run_dir(trainer).path
    try:
        history = [row.metrics for row in read_rows(home / JOURNAL, most=_LONGEST_CURVE)]
        if not history:
            return f"not drawn, {directory / JOURNAL} is empty"
        plot_learning_curve(history, title, home / path.name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            return f"not drawn, {told(error)}"
        return "not drawn, it needs matplotlib: pip install 'rlstack[viz]'"
    except Exception as error:
        return f"not drawn, {told(error)}"
    return str(path)


def _where_tracked(trainer: Trainer) -> str:
    """Return which MLflow run has the metrics and how to look at it, or why there is none."""
    tracker = trainer.tracker
    if not tracker.enabled:
        return "none"
    if not tracker.is_complete:
        return f"incomplete{tracker.way_out}"
    uri = tracker.run.uri or ""
    look = shlex.join(["mlflow", "ui", "--backend-store-uri", uri])
    return f"{tracker.run_id} in {uri}\n{16 * ' '}{look}  (needs pip install 'rlstack[mlflow]')"


def _log_model(trainer: Trainer) -> str | None:
    """Log the policy as a model of the tracked run; return its name, or why it isn't, None if not tracked."""
    tracker = trainer.tracker
    if not tracker.enabled or tracker.run_id is None or not tracker.is_complete:
        return None
    try:
        return log_policy(trainer.algorithm.policy, tracker.run_id, tracker.uri)
    except Exception as error:
        return f"none, {error if isinstance(error, TrackingError) else told(error)}"
