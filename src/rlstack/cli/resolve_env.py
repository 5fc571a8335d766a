"""What a name on the command line means: an environment, and the directories of its runs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.errors import HparamsError
from ..common.nested import merge
from ..common.validation import did_you_mean
from ..env.base import EnvFactory
from ..env.simulators import is_simulator, meant_simulator
from ..runs.class_files import split
from ..runs.class_paths import find_class, find_classes
from .recipes import RECIPES
from .simulator_recipes import hyperparameters_for


def resolve(
    name: str, hyperparameters: Mapping[str, Any], algorithm: str = "feedforward", base: Path | None = None
) -> tuple[EnvFactory, dict[str, Any]]:
    """Return an environment's class, and the hyperparameters with those that suit it, if some are known.

    Args:
        name: A built-in name, that of a simulator, `gym:HalfCheetah-v5`, `module:Class` or
            `path/to/file.py:Class`.
        hyperparameters: Those that differ from what suits it; classes may be named.
        algorithm: `feedforward` or `recurrent`.
        base: Directory from which a file is named; None is the working directory.

    Raises:
        HparamsError: If there is no such environment, or a class that is named isn't there.
    """
    recipe = RECIPES.get(name)
    hyperparameters = find_classes(hyperparameters, base)
    env_cls = _import_env(name, base) if recipe is None else recipe.env_cls()
    solving = find_classes(
        hyperparameters_for(name, algorithm) if recipe is None else recipe.for_algorithm(algorithm)
    )
    if {"model", "model_cls"} & {key for key, value in hyperparameters.items() if value is not None}:
        # Its options are those of the default model.
        solving.pop("model_config", None)
    return env_cls, merge(solving, hyperparameters)


def _import_env(name: str, base: Path | None) -> EnvFactory:
    """Return the class that `gym:Name`, `module:Class` or `path/to/file.py:Class` names."""
    if is_simulator(name):
        return find_class(name, "env")
    if ":" not in name and "." not in name:
        raise HparamsError(
            f"{name} is not a built-in environment{did_you_mean(name, RECIPES)}, or module:Class"
        )
    if split(name) is None and not re.fullmatch(r"\w+(\.\w+)*[:.]\w+(\.\w+)*", name):
        raise HparamsError(
            f"{name} is not of the form module:Class, like my_package.my_module:MyEnv{meant_simulator(name)}"
        )
    return find_class(name, "env", base)
