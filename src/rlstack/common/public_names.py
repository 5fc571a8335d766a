"""Modules of classes and functions as files name them. Standard library only."""

from types import FunctionType

_OWN = __name__.partition(".")[0]

_DEEPER = {f"{_OWN}.env.mujoco"}
"""Packages within packages that hand on themselves what is public in them."""


def public_module(module: str) -> str:
    """Return the module whose name stands in files for this one: of rlstack's own, the package it is in.

    Packages hand on what is public in them; in which of their modules that is may change with each version.
    """
    if not module.startswith(f"{_OWN}."):
        return module
    parts = module.split(".")
    deeper = ".".join(parts[:3])
    return deeper if deeper in _DEEPER else ".".join(parts[:2])


def simulator_name(value: object) -> str | None:
    """Return the name, `gym:HalfCheetah-v5`, under which a class is found that no module has; None of others.

    A class that is derived from one of a simulator is found as others are.
    """
    name = vars(value).get("simulator_name") if isinstance(value, type) else None
    return name if isinstance(name, str) else None


def public_name(value: type | FunctionType) -> str:
    """Return the dotted name of a class or function, as it stands in files."""
    return f"{public_module(value.__module__)}.{value.__qualname__}"
