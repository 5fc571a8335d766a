"""Environments of other packages, by name: `gym:HalfCheetah-v5`. Nothing is imported before it is used."""

from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from ..common.errors import EnvError, told
from ..common.validation import did_you_mean
from .base import Env

MAKERS = {
    "gym": ("gymnasium", "make"),
    "dm": ("dm_control", "make"),
    "mjlab": ("mjlab", "make"),
    "brax": ("jax", "make_brax"),
    "playground": ("jax", "make_playground"),
}
"""By prefix the module beside this one, and its function that takes the rest of the name and options."""

_MOST_NAMES = 8
"""Of so many an error names all."""


def is_simulator(name: str) -> bool:
    """Return whether a name has one of the prefixes."""
    return name.partition(":")[0] in MAKERS and ":" in name


def meant_simulator(name: str) -> str:
    """Return a clause that offers the nearest prefix for that of a name, where one is near; else nothing."""
    prefix, colon, rest = name.partition(":")
    by_module = {module: known for known, (module, _) in reversed(MAKERS.items())}
    near = get_close_matches(prefix, known := {**by_module, **{key: key for key in MAKERS}}, n=1)
    return f": did you mean {known[near[0]]}:{rest}?" if colon and near else ""


def find_simulator(name: str) -> type[Env]:
    """Return the environment that `prefix:name` means.

    Raises:
        EnvError: If its package is missing, or knows no such environment.
    """
    prefix, _, rest = name.partition(":")
    module, function = MAKERS[prefix]
    made: type[Env] = getattr(import_module(f".{module}", __package__), function)(rest)
    return made


def needed(module: str, install: str, what: str) -> ModuleType:
    """Return a module of a package that may be missing.

    Args:
        module: Its name.
        install: What `pip install` takes.
        what: For what it is needed.

    Raises:
        EnvError: If it can't be imported, with what to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise EnvError(f"{what} needs {error.name}: pip install {install}") from None
        raise EnvError(f"{what} needs {module}, whose import raised {told(error)}") from error
    except Exception as error:
        raise EnvError(f"{what} needs {module}, whose import raised {told(error)}") from error


def unknown(name: str, kind: str, known: list[str]) -> EnvError:
    """Return the error for a name that a simulator doesn't know; of many that it knows, some are named."""
    if not get_close_matches(name, known, n=1) and len(known) > _MOST_NAMES:
        return EnvError(f"{name} is not {kind}: expected {', '.join(sorted(known)[:_MOST_NAMES])}, or others")
    return EnvError(f"{name} is not {kind}{did_you_mean(name, known)}")
