"""What texts on the command line mean."""

import ast
import json
import re
from typing import Any

import click


def seconds(text: str) -> float:
    """Return the seconds that a text like 90, 90s, 10m or 2h means."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a time: use seconds, or 90s, 10m, 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def interval(text: str) -> dict[str, Any]:
    """Return the options of `CheckpointConfig` that a number of updates, or a time with its unit, means."""
    if re.fullmatch(r"[1-9]\d*", text):
        return {"every_updates": int(text), "every_seconds": None}
    return {"every_seconds": seconds(text)}


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Return `key=value` texts as nested options; values are JSON or Python literals, else text.

    Raises:
        click.UsageError: If a text is no assignment, or a key is given twice.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        *path, last = key.split(".")
        if not separator or not all((*path, last)):
            raise click.UsageError(f"{assignment!r} is not of the form key=value")
        options = values
        for part in path:
            options = options.setdefault(part, {})
            if not isinstance(options, dict):
                raise click.UsageError(f"{key} is given both as a value and as options")
        if last in options:
            raise click.UsageError(f"{key} is given twice")
        options[last] = _parse_value(text)
    return values


def _parse_value(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text
