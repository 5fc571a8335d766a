"""When a training on the command line is over, and whether it got where it was to."""

from dataclasses import dataclass
from typing import final

from ..common.metrics import ENV_TOTAL_STEPS
from ..common.types import Config, Stats
from ..conditions import Condition, HitsUpperBound, TimesOut
from ..training.trainer import Trainer
from .recipes import RECIPES, Recipe

_STEPS = "algorithm/steps"


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


def goal_of(name: str | None, trainer: Trainer) -> Solved | None:
    """Return what the recipe of a built-in name, or of a resumed run's environment, calls solved."""
    algorithm = trainer.algorithm
    if name is not None:
        recipe = RECIPES.get(name)
    else:
        recipe = next((each for each in RECIPES.values() if each.env_cls() is algorithm.env_cls), None)
    if recipe is None:
        return None
    own = recipe.hyperparameters.get("env_config", {})
    env_config = algorithm.hparams.env_config or {}
    return Solved(recipe, trainer, {key: value for key, value in env_config.items() if own.get(key) != value})


def verdict(solved: Solved | None, trainer: Trainer, seconds: float) -> str:
    """Return how a training ended, in a line."""
    end = "Interrupted" if trainer.interrupted else "Done"
    if solved is not None:
        is_solved = solved.look()
        end = "Solved" if is_solved else f"{end}, not solved"
        end += f": {solved.recipe.goal} (score {solved.score:.4g})"
    return f"{end}, after {trainer.steps} updates and {seconds:.0f} s."
