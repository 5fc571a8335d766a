"""Modules of classes and functions as files name them. Standard library only."""

from types import FunctionType

_OWN = __name__.partition(".")[0]


def public_module(module: str) -> str:
    """Return the module whose name stands in files for this one: of rlstack's own, the package it is in.

    Packages hand on what is public in them; in which of their modules that is may change with each version.
    """
    return ".".join(module.split(".")[:2]) if module.startswith(f"{_OWN}.") else module


def public_name(value: type | FunctionType) -> str:
    """Return the dotted name of a class or function, as it stands in files."""
    return f"{public_module(value.__module__)}.{value.__qualname__}"
