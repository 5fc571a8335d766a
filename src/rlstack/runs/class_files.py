"""Classes in files: `path/to/file.py:Class`, where no package has them.

A file is imported under its own name, as Python does with the neighbors of a script. Where that is the name
of another module (`random.py`), or can't be one (`my-env.py`), it gets a name that only this process knows.
Standard library only.
"""

import os
import re
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import count, takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from ..common.public_names import public_module, simulator_name

_PRIVATE = "_file"
"""How the names begin that only this process knows."""

_INSTALLED = {"site-packages", "dist-packages"}
"""Directories whose modules are found by their names from everywhere."""


def split(name: str) -> tuple[Path, str] | None:
    """Return the file and the class that a name means; None if it names no file."""
    match = re.fullmatch(r"(.*\.py):(\w+(?:\.\w+)*)", name, re.DOTALL)
    return None if match is None else (Path(match[1]), match[2])


def anchor(name: str, base: Path) -> str:
    """Return a name that means from the working directory what it means from another one."""
    parts = split(name)
    return name if parts is None else f"{base / parts[0]}:{parts[1]}"


def import_file(path: Path) -> ModuleType:
    """Return a file as a module; one that is imported already, as a script too, isn't run again.

    Its neighbors can be imported from then on: before all other modules, after them if its own name is that
    of another one.

    Raises:
        OSError: If it can't be read.
        Exception: Whatever it raises itself.
    """
    path = path.resolve()
    private = (f"{_PRIVATE}{number}_{path.stem}" for number in count(1))
    taken = list(takewhile(lambda name: name in sys.modules, private))
    for name in ("__main__", path.stem, *taken):
        module = sys.modules.get(name)
        if module is not None and _file_of(module) == path:
            return module
    name = path.stem
    if name in sys.modules or not _is_free(name, path):
        name = f"{_PRIVATE}{len(taken) + 1}_{path.stem}"
    if str(path.parent) not in sys.path:
        sys.path.insert(0 if name == path.stem else len(sys.path), str(path.parent))
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def look_up(module: ModuleType | None, qualname: str) -> Any:
    """Return what a module has under a name, with dots if need be; None if it hasn't."""
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def name_class(cls: type, base: Path | None = None) -> str:
    """Return the name that finds a class again, in another process too.

    Args:
        cls: The class.
        base: Directory from which its file is named, if it is named by that; None is the working directory.
    """
    if simulator := simulator_name(cls):
        return simulator
    name, qualname = public_module(cls.__module__), cls.__qualname__
    module = sys.modules.get(cls.__module__)
    spec = getattr(module, "__spec__", None)
    if name == "__main__" and spec is not None and "." in spec.name:
        # python -m package.module
        name = spec.name
    file = _file_of(module)
    if "." in name or file is None or _INSTALLED & {*file.parts} or look_up(module, qualname) is not cls:
        return f"{name}{':' if '.' in qualname else '.'}{qualname}"
    return f"{os.path.relpath(file, (base or Path()).resolve())}:{qualname}"


def is_same_class(one: str, other: str) -> bool:
    """Return whether two names, `module.Class`, may be of one class: that of a file has more than one."""
    if one == other:
        return True
    (module, _, rest), (another, _, other_rest) = one.partition("."), other.partition(".")
    return rest == other_rest and any(
        name == "__main__" or name.startswith(_PRIVATE) for name in (module, another)
    )


def _is_free(name: str, path: Path) -> bool:
    """Return whether a module may have a name that no module has yet: another file's keeps it."""
    if not name.isidentifier():
        return False
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is None or (spec.origin is not None and Path(spec.origin).resolve() == path)


def _file_of(module: ModuleType | None) -> Path | None:
    """Return the Python file of a module; None if it has none."""
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) and file.endswith(".py") else None
