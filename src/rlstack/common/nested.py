"""Nested values by dotted names, and texts of values. Standard library only: the command line imports it."""

import ast
from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values as one level of dotted names; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted names with values as nested values; no name may go on where another one ends."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        options = nested
        for part in path:
            options = options.setdefault(part, {})
        options[last] = value
    return nested


def same(one: str, other: str) -> bool:
    """Return whether two texts are of one value: `(1, 2)` is `[1.0, 2.0]`, but `True` isn't `1`."""
    if one == other:
        return True
    try:
        values = ast.literal_eval(one), ast.literal_eval(other)
        return _plain(values[0]) == _plain(values[1])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        # Not both are texts of plain values.
        return False


def _plain(value: Any) -> Any:
    match value:
        case bool():
            return str(value), bool
        case list() | tuple():
            return [_plain(part) for part in value]
        case dict():
            return {key: _plain(part) for key, part in value.items()}
    return value


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`, key by key in nested options too."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else value
    return merged
