"""Texts in and out of the command line: arguments, results, and faults with their exit codes."""

import ast
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..common.nested import flatten

TRACKING, USAGE, ENVIRONMENT, NON_FINITE, CHECKPOINT, INTERRUPTED = 1, 2, 3, 4, 5, 130
"""Exit codes: MLflow doesn't take it; what the user wrote, the environment did, training did; no sound
checkpoint; Ctrl-C."""

_MOST_LINES, _MOST_MISTAKES = 3, 20
"""Of an error: the first ones say enough. Of what the user wrote, each line is a mistake of its own."""


WORDS = "rlstack.words"
"""What the words of a command are kept as in its context's `meta`."""


class KeepsWords(click.Command):
    """A command that remembers the words that it was given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words, and go on as usual."""
        ctx.meta[WORDS] = [*args]
        return super().parse_args(ctx, args)


def without(words: list[str], *options: str) -> list[str]:
    """Return words of a command without some options and their values."""
    kept, of_option = list[str](), False
    for word in words:
        if not of_option and word.partition("=")[0] not in options:
            kept.append(word)
        of_option = not of_option and word in options
    return kept


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


def seeds(text: str) -> list[int]:
    """Return the seeds that a text like 3, 0-9 or 0-4,7 means."""
    found = list[int]()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise click.BadParameter(f"{text!r} are no seeds: use 0-9, or 0,1,5")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len({*found}) < len(found):
        raise click.BadParameter(f"{text!r} has a seed twice")
    return found


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


def env_options(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Return options of an environment, `length=0.7` or, as among hyperparameters, `env_config.length=0.7`.

    Raises:
        click.UsageError: As `parse_assignments`.
    """
    values = parse_assignments(assignments)
    nested = values.pop("env_config", {})
    if not isinstance(nested, dict):
        raise click.UsageError("env_config is not of the form env_config.key=value")
    return nested | values


def _parse_value(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def show(result: dict[str, Any], *, as_json: bool) -> None:
    """Print what a command found, as JSON or as lines of dotted names and values."""
    if as_json:
        click.echo(json.dumps(result))
        return
    flat = flatten(result)
    width = max(map(len, flat))
    for name, value in flat.items():
        click.echo(f"{name:<{width}}  {shown(value)}")


def shown(value: Any) -> str:
    """Return a value as people read it: of a number six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def faults() -> Iterator[None]:
    """Say in a sentence what went wrong, and exit with its code."""
    from ..common.errors import (
        CheckpointError,
        EnvError,
        ExportError,
        HparamsError,
        NonFiniteError,
        PolicyFileError,
        RunDirError,
        StatisticError,
        TrackingError,
        told,
    )

    try:
        yield
    except (CheckpointError, PolicyFileError) as error:
        _fail(str(error), CHECKPOINT)
    except HparamsError as error:
        _fail(str(error), USAGE, _MOST_MISTAKES)
    except (ExportError, RunDirError, StatisticError, click.UsageError) as error:
        _fail(str(error), USAGE)
    except TrackingError as error:
        _fail(str(error), TRACKING)
    except EnvError as error:
        _fail(str(error), ENVIRONMENT)
    except NonFiniteError as error:
        _fail(str(error), NON_FINITE)
    except BrokenPipeError:
        # Nobody reads on: click ends quietly.
        raise
    except OSError as error:
        # A full disk, no permission, a file where a directory should be: the system says which.
        where = f"{error.filename} can't be used: " if error.filename is not None else ""
        _fail(f"{where}{error.strerror or told(error)}", USAGE)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)


def _fail(message: str, code: int, most: int = _MOST_LINES) -> None:
    lines = f"rlstack: {message}".splitlines()
    if most == _MOST_MISTAKES and len(lines) > most:
        lines[most:] = [f"and {len(lines) - most} more"]
        most += 1
    click.echo("\n".join(lines[:most]), err=True)
    sys.exit(code)


def write_all() -> None:
    """Let what an output's encoding lacks be written as an escape, instead of ending the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def quiet_mlflow() -> None:
    """Let MLflow make its database without a word: that would tear the display apart."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)


def hush_others() -> None:
    """Print no warnings of what will change in other packages: their users' concern, not ours' users'."""
    others = "torch|torchrl|tensordict|mlflow|pydantic|rich|click"
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", category=FutureWarning, module=rf"({others})(\.|$)")
