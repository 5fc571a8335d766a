"""What there is: a commented configuration, the built-in environments, and runs on disk."""

import re
import textwrap
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from . import checkpoint
from .checkpoint import CheckpointError
from .class_files import split
from .config import dump
from .keywords import meanings
from .names import resolve
from .recipes import RECIPES
from .run_config import TrainerConfig
from .run_options import ALGORITHMS, CheckpointConfig


def default_config(env: str, algorithm: str) -> str:
    """Return a configuration as YAML, with every default and what it means.

    Args:
        env: A built-in name, whose recipe goes before the defaults, or `module:Class`, or
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


def runs(directory: Path) -> list[dict[str, Any]]:
    """Return the runs in a directory, 2 before 10, and how far each is; only manifests are read."""
    found = []
    for path in sorted(directory.iterdir(), key=_by_number) if directory.is_dir() else []:
        if not (path / "config.yaml").is_file():
            continue
        last: dict[str, Any] = {"name": path.name, "updates": 0}
        for number in checkpoint.numbered(path / "checkpoints"):
            try:
                info = checkpoint.manifest(number)["info"]
            except (CheckpointError, OSError) as error:
                last["fault"] = str(error)
                continue
            last |= {name: info[name] for name in ("updates", "env_steps")}
            last["returns/mean"] = info["stats"].get("returns/mean")
            break
        found.append(last)
    return found


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    """Return a key that sorts names as people count."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


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
