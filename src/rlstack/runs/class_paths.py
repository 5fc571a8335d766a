"""Classes by their names in a configuration."""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..common.errors import ConfigError, EnvError, told
from ..common.validation import did_you_mean
from ..distributions import Distribution
from ..env.base import Env
from ..env.simulators import find_simulator, is_simulator, meant_simulator
from . import class_files

CLASSES: dict[str, type] = {
    "env": Env,
    "model_cls": torch.nn.Module,
    "distribution_cls": Distribution,
    "optimizer_cls": torch.optim.Optimizer,
}
"""What the classes that a file may name must be derived from."""


def find_class(name: Any, option: str, base: Path | None = None) -> type:
    """Return the class that `package.module.Class`, `module:Class` or `path/to/file.py:Class` names.

    Args:
        name: The name; of an environment it may be that of a simulator, `gym:HalfCheetah-v5`.
        option: What it is for; the class must be of the kind that this needs.
        base: Directory from which a file is named; None is the working directory.

    Raises:
        ConfigError: If there is no such class; nothing of it has been called.
    """
    kind = CLASSES[option]
    if option == "env" and isinstance(name, str) and is_simulator(name):
        try:
            return find_simulator(name)
        except EnvError as error:
            raise ConfigError(str(error)) from None
    if isinstance(name, str) and (parts := class_files.split(name)):
        home, attribute = str(parts[0]), parts[1]
        _check_file(name, parts[0], option, base)
    elif isinstance(name, str) and re.fullmatch(r"\w+(\.\w+)*[.:]\w+|\w+(\.\w+)*:\w+(\.\w+)*", name):
        home, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")
        parts = None
    else:
        raise ConfigError(f"{option} is {name!r}, {_how_named(name, option)}")
    try:
        module = class_files.import_file((base or Path()) / parts[0]) if parts else import_module(home)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{home}.".startswith(f"{missing}."):
            hint = f"; if it is in a file, name it by that: path/to/{missing}.py:{attribute}"
            hint = "" if "." in missing else hint
            hint = (meant_simulator(name) if option == "env" else "") or hint
            raise ConfigError(f"{option} is {name}: there is no module {missing}{hint}") from None
        raise ConfigError(f"{option} is {name}: importing it raised {told(error)}") from error
    found = class_files.look_up(module, attribute)
    if found is None and home == "__main__":
        raise ConfigError(f"{option} is {name}, {_how_named(f'<{name}>', option)}")
    if found is None:
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(f"{option} is {name}: {home} has no {attribute}{did_you_mean(attribute, classes)}")
    if not isinstance(found, type) or not issubclass(found, kind):
        raise ConfigError(
            f"{option} is {name}, expected a class derived from {kind.__module__}.{kind.__name__}"
        )
    return found


def find_classes(algorithm_config: Mapping[str, Any], base: Path | None = None) -> dict[str, Any]:
    """Return hyperparameters with classes in place of their names.

    Args:
        algorithm_config: The hyperparameters.
        base: Directory from which files are named; None is the working directory.

    Raises:
        ConfigError: If there is no such class; a line for each.
    """
    found, faults = dict(algorithm_config), []
    for key in CLASSES.keys() & algorithm_config.keys():
        if not isinstance(algorithm_config[key], type | None):
            try:
                found[key] = find_class(algorithm_config[key], key, base)
            except ConfigError as error:
                faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return found


def _check_file(name: str, file: Path, option: str, base: Path | None) -> None:
    """Refuse a file that isn't there, or that a run directory has brought along: it could be anybody's."""
    path = ((base or Path()) / file).resolve()
    if not path.is_file():
        raise ConfigError(f"{option} is {name}: there is no file {path}")
    if base is not None and (base / "checkpoints").is_dir() and path.is_relative_to(base.resolve()):
        raise ConfigError(
            f"{option} is {name}, in the run's own directory: code that a run brings along isn't run, move it"
        )


def _how_named(name: Any, option: str) -> str:
    """Return why a name can't be that of a class, and what to do."""
    if isinstance(name, str) and "<" in name:
        given = "env_cls=…" if option == "env" else f"algorithm_config={{{option!r}: …}}"
        typed = "file.py:Class --resume DIR" if option == "env" else f"--resume DIR {option}=file.py:Class"
        return (
            f"which is no class that a file has: hand it over, Trainer.resume(run_dir, {given}), or name one "
            f"that has a file, rlstack train {typed}"
        )
    return "expected the name of a class, like package.module.Class or path/to/file.py:Class"
