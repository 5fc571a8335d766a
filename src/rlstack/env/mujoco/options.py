"""Options of an environment by name, each of the kind that its default value has."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from ...common.errors import EnvError
from ...common.types import Config
from ...common.validation import did_you_mean, is_number

COMMON: Final = ("frame_skip", "max_episode_steps", "num_threads")
"""Options of every task; they stay as they were when it was made."""

_PAIR = 2


def resolve_options(
    defaults: Mapping[str, Any], given: Config | None, name: str, *, fixed: Collection[str] = ()
) -> dict[str, Any]:
    """Return the options in force: the defaults, changed by those that are given.

    Args:
        defaults: Values by name. Their kind decides what may take their place: True or False, a number, a
            pair of numbers; anything else if they are of another kind.
        given: Those that differ.
        name: Of the environment, for errors.
        fixed: Names of those that can't differ any more.

    Raises:
        EnvError: If one is unknown, of another kind, or can't differ any more.
    """
    found = dict(defaults)
    for key, value in (given or {}).items():
        if key not in defaults:
            raise EnvError(f"env_config.{key} is not an option of {name}{did_you_mean(key, defaults)}")
        found[key] = _checked(f"env_config.{key} of {name}", key, defaults[key], value)
        if key in fixed and found[key] != defaults[key]:
            raise EnvError(
                f"env_config.{key} of {name} is {defaults[key]!r} and can't be changed to {value!r}: set it "
                "when the environment is made"
            )
    return found


def _checked(where: str, key: str, default: Any, value: Any) -> Any:
    if key in COMMON:
        may_be_none = key != "frame_skip"
        if (value is None and may_be_none) or (type(value) is int and value >= 1):
            return value
        expected = "a whole number of at least 1" + (", or None" if may_be_none else "")
    elif isinstance(default, bool):
        if isinstance(value, bool):
            return value
        expected = "True or False"
    elif is_number(default):
        if is_number(value):
            return value
        expected = "a number"
    elif isinstance(default, tuple) and len(default) == _PAIR and all(map(is_number, default)):
        if isinstance(value, list | tuple) and len(value) == _PAIR and all(map(is_number, value)):
            return tuple(value)
        expected = "a pair of numbers, like [0.2, 1.0]"
    else:
        return value
    raise EnvError(f"{where} is {value!r}, expected {expected}")
