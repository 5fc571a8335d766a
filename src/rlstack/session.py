"""One `rlstack train`: from an environment's name to files in a run directory."""

import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any, final

from rich.console import Console

from .conditions import Condition, HitsUpperBound, TimesOut
from .data import ENV_TOTAL_STEPS, Config, Stats
from .display import make_display, plot_learning_curve
from .env.base import EnvFactory
from .hparams import HparamsError, did_you_mean
from .recipes import RECIPES, Recipe
from .trainer import Trainer

_STEPS = "algorithm/steps"
_LONGEST_HISTORY = 4000
"""Updates that are kept for the learning curve; beyond that, every other one of them is dropped."""


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


@final
class Solved(Condition):
    """Holds when a recipe's deterministic evaluation reaches its target; looks every few updates.

    Args:
        recipe: Whose.
        trainer: The policy's.
        env_config: Options of the environment that differ from the recipe's: they count when judging, too.
    """

    score: float | None = None
    """Of the last look."""

    def __init__(self, recipe: Recipe, trainer: Trainer, env_config: Config | None) -> None:
        self.recipe, self.trainer, self.env_config = recipe, trainer, env_config
        self._looked_at = -1

    def __call__(self, stats: Stats) -> bool:
        """Return whether the environment is solved now."""
        if stats[_STEPS] % self.recipe.updates_per_check:
            return False
        return self.look()

    def look(self) -> bool:
        """Evaluate the policy, unless that has been done; return whether the environment is solved."""
        if self.score is None or self._looked_at != self.trainer.steps:
            self.score = self.recipe.score(self.trainer.algorithm.policy, self.env_config)
            self._looked_at = self.trainer.steps
        return self.score >= self.recipe.target


def train(
    name: str,
    hyperparameters: Mapping[str, Any],
    limits: Limits,
    *,
    run_dir: Path | None,
    console: Console,
) -> int | None:
    """Train on an environment until it is solved or a limit is reached, and leave the policy on disk.

    Args:
        name: A built-in name, or `module:Class`.
        hyperparameters: Of the algorithm; they go before the recipe's.
        limits: When to stop at the latest.
        run_dir: Where to; None makes a new directory under `runs`.
        console: Where to say what happens.

    Returns:
        Whether Ctrl-C ended it.

    Raises:
        HparamsError: If the name or a hyperparameter can't be.
        EnvError, NonFiniteError: As training raises them.
    """
    recipe = RECIPES.get(name)
    env_cls, algorithm_config = resolve(name, hyperparameters)
    trainer = Trainer(env_cls, algorithm_config=algorithm_config)
    solved = Solved(recipe, trainer, hyperparameters.get("env_config")) if recipe else None
    conditions = [*limits.conditions(), *([solved] if solved else [])]
    directory = _make_run_dir(name) if run_dir is None else run_dir
    directory.mkdir(parents=True, exist_ok=True)
    policy_path = directory / "policy.safetensors"
    if recipe:
        _say(console, f"Training {name} until {recipe.goal}.")
    history: list[Stats] = []
    start = time.monotonic()
    try:
        with make_display(console, name) as display:
            for stats in trainer.updates(stop_conditions=conditions):
                history.append(stats)
                if len(history) > _LONGEST_HISTORY:
                    del history[1::2]
                display.show(stats, limits.share(stats, time.monotonic() - start))
    finally:
        # Whatever happened, what was learned so far is kept.
        if history:
            trainer.algorithm.policy.save(policy_path)
    seconds = time.monotonic() - start
    _say(console, _verdict(solved, trainer, seconds))
    if history:
        _say(console, f"Policy:         {policy_path}")
        title = f"{name}: {history[-1][ENV_TOTAL_STEPS]:,.0f} steps in {seconds:.0f} s"
        _say(console, f"Learning curve: {_draw(history, title, directory)}")
        _say(console, f"Tracked run:    {_where_tracked(trainer)}")
    return trainer.interrupted


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _verdict(solved: Solved | None, trainer: Trainer, seconds: float) -> str:
    end = "Interrupted" if trainer.interrupted else "Done"
    if solved is not None:
        is_solved = solved.look()
        end = "Solved" if is_solved else f"{end}, not solved"
        end += f": {solved.recipe.goal} (score {solved.score:.4g})"
    return f"{end}, after {trainer.steps} updates and {seconds:.0f} s."


def _draw(history: list[Stats], title: str, directory: Path) -> str:
    """Draw the learning curve; return where it is, or why there is none."""
    path = directory / "learning_curve.png"
    try:
        plot_learning_curve(history, title, path)
    except ImportError:
        return "not drawn, it needs matplotlib: pip install rlstack[viz]"
    return str(path)


def _where_tracked(trainer: Trainer) -> str:
    """Return which MLflow run has the metrics and how to look at it, or why there is none."""
    tracker = trainer.tracker
    if tracker.run_id is None or tracker.error is not None:
        return f"incomplete, MLflow failed with {tracker.error}"
    import mlflow

    uri = mlflow.get_tracking_uri()
    return f"{tracker.run_id} in {uri}\n{16 * ' '}mlflow ui --backend-store-uri {uri}  (needs rlstack[ui])"


def resolve(name: str, hyperparameters: Mapping[str, Any]) -> tuple[EnvFactory, dict[str, Any]]:
    """Return an environment's class, and the hyperparameters with those of its recipe, if it has one.

    Raises:
        HparamsError: If there is no such environment.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        return _import_env(name), dict(hyperparameters)
    return recipe.env_cls(), _merge(recipe.hyperparameters, hyperparameters)


def _import_env(name: str) -> EnvFactory:
    """Return what `module:Class` names, found from the working directory too."""
    module_name, separator, attribute = name.partition(":")
    if not separator:
        raise HparamsError(
            f"{name} is not a built-in environment{did_you_mean(name, RECIPES)}, or module:Class"
        )
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        raise HparamsError(f"{name} is not of the form module:Class, like my_package.my_module:MyEnv")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise HparamsError(f"{name}: there is no module {error.name}") from None
    except Exception as error:
        raise HparamsError(f"{name}: importing it raised {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise HparamsError(f"{name}: {module_name} has no {attribute}{did_you_mean(attribute, classes)}")
    env_cls = getattr(module, attribute)
    if not callable(env_cls):
        raise HparamsError(
            f"{name} is a {type(env_cls).__name__}, expected an Env class or a function like it"
        )
    return env_cls


def _make_run_dir(name: str) -> Path:
    """Return a new directory `runs/<env>-<date>-<n>`, the first free n from 1 on."""
    stem = f"{name.rpartition(':')[2]}-{date.today():%Y%m%d}"
    number = 1
    while True:
        directory = Path("runs") / f"{stem}-{number}"
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return directory


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`, key by key in nested options too."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
