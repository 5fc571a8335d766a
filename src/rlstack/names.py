"""What a name on the command line means: an environment, and the directories of its runs."""

import re
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from .config import find_class, find_classes
from .env.base import EnvFactory
from .hparams import HparamsError, did_you_mean
from .recipes import RECIPES


def resolve(name: str, hyperparameters: Mapping[str, Any]) -> tuple[EnvFactory, dict[str, Any]]:
    """Return an environment's class, and the hyperparameters with those of its recipe, if it has one.

    Raises:
        HparamsError: If there is no such environment.
    """
    recipe = RECIPES.get(name)
    hyperparameters = find_classes(hyperparameters)
    if recipe is None:
        return _import_env(name), hyperparameters
    return recipe.env_cls(), merge(recipe.hyperparameters, hyperparameters)


def _import_env(name: str) -> EnvFactory:
    """Return the class that `module:Class` or `path/to/file.py:Class` names."""
    file, separator, cls = name.rpartition(".py:")
    if separator:
        return _import_file(Path(f"{file}.py"), cls)
    if ":" not in name and "." not in name:
        raise HparamsError(
            f"{name} is not a built-in environment{did_you_mean(name, RECIPES)}, or module:Class"
        )
    if not re.fullmatch(r"\w+(\.\w+)*[:.]\w+", name):
        raise HparamsError(f"{name} is not of the form module:Class, like my_package.my_module:MyEnv")
    return find_class(name, "env")


def _import_file(path: Path, cls: str) -> EnvFactory:
    """Return a class of a file, which is imported by its name, as Python does with a script's neighbors."""
    if not path.is_file():
        raise HparamsError(f"there is no file {path}")
    # Before it is run, which may change the working directory.
    place = path.resolve()
    if str(place.parent) not in sys.path:
        sys.path.insert(0, str(place.parent))
    found = find_class(f"{path.stem}:{cls}", "env")
    where = getattr(sys.modules[path.stem], "__file__", None)
    if where is None or Path(where).resolve() != place:
        raise HparamsError(
            f"{path} can't be imported: {path.stem} is another module, {where}; rename the file"
        )
    return found


def _stem(name: str) -> str:
    return name.replace(":", ".").rpartition(".")[2]


def make_run_dir(name: str) -> Path:
    """Return a new directory `runs/<env>-<date>-<n>`, the first free n from 1 on."""
    stem = f"{_stem(name)}-{date.today():%Y%m%d}"
    number = 1
    while True:
        directory = Path("runs") / f"{stem}-{number}"
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return directory


def runs_of(name: str) -> list[Path]:
    """Return the directories under `runs` of an environment, the last one last."""
    pattern = re.compile(rf"{re.escape(_stem(name))}-(\d{{8}})-(\d+)")
    found = [(pattern.fullmatch(path.name), path) for path in Path("runs").glob("*-*-*")]
    return [path for *_, path in sorted((m[1], int(m[2]), path) for m, path in found if m)]


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`, key by key in nested options too."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else value
    return merged
