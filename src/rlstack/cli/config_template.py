"""What there is: a commented configuration, the built-in environments, and runs on disk."""

import textwrap
from dataclasses import MISSING, fields
from typing import Any

from ..common.fields import meanings
from ..runs.class_files import split
from ..runs.options import CheckpointConfig, TrainerConfig
from ..runs.saved_config import ALGORITHMS
from ..runs.yaml_format import dump
from .recipes import RECIPES
from .resolve_env import resolve


def default_config(env: str, algorithm: str) -> str:
    """Return a configuration as YAML, with every default and what it means.

    Args:
        env: A built-in name, whose recipe goes before the defaults, or `gym:Name`, `module:Class`, or
            `path/to/file.py:Class`.
        algorithm: `feedforward` or `recurrent`.

    Raises:
        HparamsError: If there is no such environment.
    """
    _, recipe = resolve(env, {}, algorithm)
    hint = "" if split(env) is None else " Files are seen from the directory of this one."
    lines = [
        f"# rlstack train -f THIS_FILE; {env} with all defaults.{hint}",
        *dump({"env": env, "algorithm": algorithm}).splitlines(),
        "algorithm_config:",
        *_options(ALGORITHMS[algorithm].hparams_cls, recipe),
        "# stop_conditions:",
        "#   - HitsUpperBound: {key: returns/mean, bound: 100}",
        "trainer:",
        *_options(TrainerConfig, {"checkpoint_config": _defaults(CheckpointConfig)}),
    ]
    return "\n".join(lines) + "\n"


def environments() -> list[dict[str, Any]]:
    """Return the built-in environments: their names, and what solving them means."""
    return [{"name": name, "solved": recipe.goal} for name, recipe in RECIPES.items()]


def _options(cls: Any, changes: dict[str, Any]) -> list[str]:
    """Return a dataclass's fields as indented lines of YAML, each below what it means."""
    lines = []
    said = meanings(cls)
    for name, default in _defaults(cls).items():
        if name == "model":
            # An instance, which no file can hold.
            continue
        lines += textwrap.wrap(said[name], 100, initial_indent="  # ", subsequent_indent="  # ")
        lines += textwrap.indent(dump({name: changes.get(name, default)}), "  ").splitlines()
    return lines


def _defaults(cls: Any) -> dict[str, Any]:
    return {
        entry.name: entry.default_factory() if entry.default_factory is not MISSING else entry.default
        for entry in fields(cls)
    }
