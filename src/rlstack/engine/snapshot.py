"""What an object holds, so that it can be put back, and kept where a recorded program reads it."""

import copy
import enum
import random
import types
from collections.abc import Iterator
from typing import Any, NamedTuple, final

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from ..common.errors import CaptureError
from ..common.serialization import tensors_of
from ..specs import TensorSpec

_PLAIN = (int, float, complex, str, bytes, type(None), np.generic, np.ndarray, enum.Enum)
"""Values that are compared and copied as a whole."""

_FIXED = (
    type,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.ModuleType,
    TensorSpec,
    torch.device,
    torch.dtype,
)
"""What doesn't change while an environment is stepped, or not without the proof noticing."""

_GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)


class _Slot(NamedTuple):
    """One place where an object holds something."""

    container: Any
    """A dictionary or a list."""
    key: Any
    value: Any


@final
class ObjectSnapshot:
    """Everything that an object holds, directly or in dictionaries, lists and objects of its own.

    Args:
        owner: The object.
        name: What to call it in errors.

    Raises:
        CaptureError: If it holds something that can't be copied, or random numbers of its own.
    """

    def __init__(self, owner: object, name: str) -> None:
        self._owner, self._name = owner, name
        self._tensors: dict[str, Any] = {}
        self._values: dict[str, Any] = {}
        for path, slot in self._slots().items():
            if isinstance(slot.value, Tensor | TensorDict):
                self._tensors[path] = slot.value
            else:
                self._values[path] = copy.deepcopy(slot.value)

    def _slots(self) -> dict[str, _Slot]:
        return dict(self._walk(vars(self._owner), self._name, set()))

    def _walk(self, container: Any, path: str, seen: set[int]) -> Iterator[tuple[str, _Slot]]:
        """Yield each tensor and each plain value by its path."""
        if id(container) in seen:
            return
        seen.add(id(container))
        entries = list(container.items()) if isinstance(container, dict) else list(enumerate(container))
        for key, value in entries:
            place = f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"
            if isinstance(value, (Tensor, TensorDict, *_PLAIN)):
                yield place, _Slot(container, key, value)
            elif isinstance(value, _FIXED):
                continue
            elif isinstance(value, _GENERATORS):
                raise CaptureError(f"{place} is a random generator of its own: draw from torch's")
            elif isinstance(value, dict | list):
                yield from self._walk(value, place, seen)
            elif isinstance(value, tuple | frozenset | set):
                if any(isinstance(part, Tensor | TensorDict | dict | list) for part in value):
                    raise CaptureError(f"{place} is a {type(value).__name__} of tensors: use a list")
                yield place, _Slot(container, key, value)
            elif hasattr(value, "__dict__"):
                yield from self._walk(vars(value), place, seen)
            else:
                raise CaptureError(f"{place} is a {type(value).__name__}, which can't be copied and put back")

    def changed(self) -> str | None:
        """Return the path of a value that isn't a tensor and is another than at first, if there is one."""
        now = self._slots()
        for path, slot in now.items():
            if isinstance(slot.value, Tensor | TensorDict):
                if path not in self._tensors:
                    return path
            elif path not in self._values or not _same(slot.value, self._values[path]):
                return path
        return next((path for path in (*self._tensors, *self._values) if path not in now), None)

    @torch.no_grad()
    def rebind(self) -> None:
        """Copy tensors that have been replaced to where the first ones are, and put those back.

        Raises:
            CaptureError: If one has another form than the first.
        """
        replaced = []
        for path, (container, key, now) in self._slots().items():
            first = self._tensors.get(path)
            if first is None or now is first:
                continue
            if not _same_form(first, now):
                raise CaptureError(f"{path} changes its shape or dtype")
            # Two of them may have changed places.
            replaced.append((container, key, first, now.clone()))
        for container, key, first, now in replaced:
            _copy(first, now)
            container[key] = first

    def tensors(self) -> list[Tensor]:
        """Return all tensors, at their first places."""
        return tensors_of(*self._tensors.values())

    def put_back(self) -> None:
        """Put what it held at first back in its places; the numbers in tensors stay as they are."""
        for path, (container, key, _) in self._slots().items():
            if path in self._tensors:
                container[key] = self._tensors[path]
            elif path in self._values:
                container[key] = copy.deepcopy(self._values[path])


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return type(one) is type(two) and np.array_equal(one, two, equal_nan=one.dtype.kind in "fc")
    return type(one) is type(two) and bool(one == two or one != one)


def _same_form(first: Any, now: Any) -> bool:
    if isinstance(first, Tensor):
        return isinstance(now, Tensor) and (first.shape, first.dtype, first.device) == (
            now.shape,
            now.dtype,
            now.device,
        )
    return (
        isinstance(now, TensorDict)
        and set(first.keys(True, True)) == set(now.keys(True, True))
        and all(_same_form(first[key], now[key]) for key in first.keys(True, True))
    )


def _copy(first: Any, now: Any) -> None:
    if isinstance(first, Tensor):
        first.copy_(now)
    else:
        first.update_(now)
