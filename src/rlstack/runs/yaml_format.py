"""What a run was made with, as YAML: plain values, and classes by their dotted names.

YAML is read by rules under which a file can't run code, can't give a key twice without an error, and means
by `1e-3` and `on` what Python means. Classes are imported by name and must be of the right kind before they
are called.
"""

import codecs
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ..common.errors import ConfigError
from . import class_files

_LONGEST, _MOST_VALUES, _DEEPEST = 2**20, 10_000, 30
"""Characters and values of a file, and levels of these."""


class _Loader(yaml.SafeLoader):
    """YAML as Python reads it: true and false alone are Booleans, 1e-3 is a number, 010 isn't 8."""


_Loader.yaml_implicit_resolvers = {}

for _tag, _pattern, _first in (
    ("bool", r"true|True|false|False", "tTfF"),
    ("null", r"null|None|~|", "nN~"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.inf|\.nan", "-+."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"({_pattern})\\Z"), list(_first))

_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"\Z"), [""])


class _Dumper(yaml.SafeDumper):
    """YAML in which a text stays one, whether it is read by these rules or by those of YAML 1.1."""


_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        *_Loader.yaml_implicit_resolvers.get(first, []),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        where = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key, str):
            raise ConfigError(f"{where}: {key!r} is a {type(key).__name__}, expected a name")
        if key in values:
            raise ConfigError(f"{where}: {key} is given twice")
        values[key] = loader.construct_object(value_node, deep=True)
    return values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ConfigError(f"{name} is given twice")
        values[name] = value
    return values


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def decode(data: bytes) -> str:
    """Return the text of a file: UTF-8, or with a byte order mark UTF-16, as PowerShell writes it.

    Raises:
        UnicodeDecodeError: If it is neither.
    """
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf_16 else "utf-8-sig")


def parse(text: str, name: str) -> dict[str, Any]:
    """Return what a YAML or JSON text says.

    Args:
        text: The text; JSON is YAML.
        name: Of the file, for errors.

    Raises:
        ConfigError: If it isn't one mapping of names to plain values.
    """
    try:
        if len(text) <= _LONGEST and text.lstrip().startswith("{"):
            with suppress(json.JSONDecodeError):
                return dict(json.loads(text, object_pairs_hook=_object))
        _check_size(text, name)
        values = yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}" if name not in str(error) else str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{name} holds a {type(values).__name__}, expected names with values, like `env: cartpole`"
        )
    return values


def _check_size(text: str, name: str) -> None:
    """Refuse what would take long to read: aliases make a short text a huge value, and depth is slow."""
    if len(text) > _LONGEST:
        raise ConfigError(f"{name}: there is more than any run has, {len(text)} characters")
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{name}: there is an alias in line {line}")
        if count > _MOST_VALUES or depth > _DEEPEST:
            raise ConfigError(f"{name}: there is more than any run has, from line {line} on")


def dump(values: Mapping[str, Any], base: Path | None = None) -> str:
    """Return plain values, and classes by their names, as YAML for a file in the directory `base`."""
    return yaml.dump(plain_values(values, base), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


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


def plain_values(value: Any, base: Path | None = None) -> Any:
    """Return a value as a file says it: plain, and classes by their names.

    Args:
        value: The value.
        base: The directory of that file, from which others are named; None is the working directory.
    """
    match value:
        case None | bool():
            return value
        case np.generic():
            return plain_values(value.item())
        # Of the plain type itself: an enum's member may be a number or a text.
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str.__str__(value)
        case type():
            return class_files.name_class(value, base)
        case Mapping():
            return {str(key): plain_values(item, base) for key, item in value.items()}
        case list() | tuple():
            return [plain_values(item, base) for item in value]
    # It can't be read back: who resumes the run must hand it over.
    return str(value) if isinstance(value, torch.device) else f"<{type(value).__name__}>"
