"""When the environment of a recipe is solved."""

from typing import final

from ..common.types import Config, Stats
from ..conditions import Condition
from ..training.trainer import Trainer
from .recipes import RECIPES, Recipe


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
        if stats["algorithm/steps"] % self.recipe.updates_per_check:
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
