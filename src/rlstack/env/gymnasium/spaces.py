"""Gymnasium's spaces as specs, and the arrays that go with them as tensors, there and back."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
import torch.utils.dlpack
from tensordict import TensorDict
from torch import Tensor

from ... import specs
from ...common.errors import EnvError
from ...common.types import Batch

_KINDS = ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple")

_NO_BOUND = 1e30
"""Bounds beyond are the largest number that a program knows, and none."""

_INTEGERS = {"uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32}


def kind_of(space: Any) -> str | None:
    """Return the name of the class among Gymnasium's own spaces that a space is of, or None.

    It goes by names: simulators may bring an older Gymnasium's spaces.
    """
    return next((cls.__name__ for cls in type(space).__mro__ if cls.__name__ in _KINDS), None)


def as_tensor(value: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor of its own with what an array holds: NumPy's, torch's, JAX's or another one.

    Args:
        value: The array.
        device: Where the tensor is to be.
        dtype: Its dtype; None keeps that of the array.
    """
    if isinstance(value, Tensor):
        return value.detach().to(device, dtype, copy=True)
    if not isinstance(value, np.ndarray) and getattr(value, "__dlpack__", None) is not None:
        # What is behind the copy is another library's, JAX for one takes it to be constant.
        return torch.utils.dlpack.from_dlpack(value).detach().to(device, dtype, copy=True)
    return torch.tensor(np.ascontiguousarray(value), dtype=dtype, device=device)


def array_kind(value: Any) -> str:
    """Return whose arrays a simulator returns, `torch`, `jax` or `numpy`: it takes the same."""
    while isinstance(value, Mapping | tuple | list) and len(value):
        value = next(iter(value.values() if isinstance(value, Mapping) else value))
    if isinstance(value, Tensor):
        return "torch"
    return "jax" if type(value).__module__.partition(".")[0] in ("jax", "jaxlib") else "numpy"


def read_space(space: Any, name: str, *, acts: bool = False) -> "Leaf | Branch":
    """Return a space as a spec, with what turns its arrays into tensors and back.

    Args:
        space: Of one simulation.
        name: What to call it in an error.
        acts: Whether it is of actions.

    Raises:
        EnvError: If it is of a kind that rlstack has no spec for.
    """
    kind = kind_of(space)
    if kind == "Dict":
        return Branch({str(k): (k, read_space(s, f"{name}.{k}", acts=acts)) for k, s in space.spaces.items()})
    if kind == "Tuple":
        parts = {str(n): (n, read_space(s, f"{name}.{n}", acts=acts)) for n, s in enumerate(space.spaces)}
        return Branch(parts, is_tuple=True)
    if kind is None:
        raise EnvError(
            f"{name} is a {type(space).__name__}, expected one of {', '.join(_KINDS)}: wrap the environment "
            "in one that has such a space"
        )
    return Leaf(space, kind, name, acts=acts)


@final
class Leaf:
    """A space of numbers.

    Args:
        space: The space.
        kind: Which of Gymnasium's it is.
        name: What to call it in an error.
        acts: Whether it is of actions.
    """

    spec: specs.TensorSpec

    def __init__(self, space: Any, kind: str, name: str, *, acts: bool) -> None:
        self._start = np.asarray(getattr(space, "start", 0))
        self._dtype = np.dtype(space.dtype)
        self._is_scalar = kind == "Discrete" or not space.shape
        self._limits: tuple[Any, Any] | None = None
        match kind:
            case "Discrete":
                self.spec = specs.Categorical(int(space.n), shape=(1,))
            case "MultiDiscrete":
                if len(space.shape) != 1:
                    raise EnvError(
                        f"{name} is a MultiDiscrete of shape {list(space.shape)}: flatten it to one dimension"
                    )
                self.spec = specs.MultiCategorical(torch.as_tensor(np.asarray(space.nvec, dtype=np.int64)))
            case "MultiBinary":
                self.spec = specs.Binary(space.shape[-1], shape=torch.Size(space.shape))
            case _:
                self.spec = self._box(space, name, acts=acts)

    def _box(self, space: Any, name: str, *, acts: bool) -> specs.TensorSpec:
        """Return the spec of a Box; bounds that aren't those of all numbers are none."""
        shape = tuple(space.shape) or (1,)
        dtype = _INTEGERS.get(self._dtype.name, torch.int64)
        if self._dtype.kind == "b":
            dtype = torch.bool
        elif self._dtype.kind == "f":
            dtype = torch.float32
        if acts and self._dtype.kind != "f":
            raise EnvError(
                f"{name} is a Box of {self._dtype.name}: wrap it in a MultiDiscrete of as many values"
            )
        low, high = (np.broadcast_to(bound, space.shape).reshape(shape) for bound in (space.low, space.high))
        if acts and (self._dtype != np.float32 or not _are_bounds(low, high)):
            # Rounded to float32 and back, or not bounded in the spec, an action may be outside of the space.
            self._limits = space.low, space.high
        if dtype == torch.bool or not _are_bounds(low, high):
            return specs.Unbounded(shape, dtype=dtype)
        return specs.Bounded(*(torch.tensor(b, dtype=dtype) for b in (low, high)), shape, dtype=dtype)

    def read(self, value: Any, device: torch.device, rows: int) -> Tensor:
        """Return an array as a tensor, [B, *shape]."""
        tensor = as_tensor(value, device, None if self._start.any() else self.spec.dtype)
        if self._start.any():
            tensor = (tensor - torch.as_tensor(self._start, device=device)).to(self.spec.dtype)
        return tensor.unsqueeze(-1) if self._is_scalar and tensor.dim() == 1 else tensor

    def write(self, action: Tensor, arrays: str) -> Any:
        """Return actions [B, *A] as a simulator takes them, an array of its own."""
        if self._is_scalar:
            action = action.squeeze(-1)
        if arrays == "torch":
            dtype = torch.from_numpy(np.empty(0, self._dtype)).dtype
            made = action.detach().to(dtype, copy=True)
            if self._limits is not None:
                made = made.clamp(*(torch.as_tensor(limit, device=made.device) for limit in self._limits))
            return made + torch.as_tensor(self._start, device=made.device) if self._start.any() else made
        found = action.detach().cpu().numpy().astype(self._dtype)
        if self._limits is not None:
            found = found.clip(*self._limits)
        if self._start.any():
            found = found + self._start.astype(self._dtype)
        return sys.modules["jax"].numpy.asarray(found) if arrays == "jax" else found

    def stack(self, values: Sequence[Any]) -> Any:
        """Return arrays of which each has one row as an array of all these rows."""
        return np.stack([np.asarray(value) for value in values])


@final
class Branch:
    """A Dict or Tuple space: parts by name, in a TensorDict.

    Args:
        parts: By the key in the spec, the key in the space, and the part.
        is_tuple: Whether it is a Tuple.
    """

    spec: specs.TensorSpec

    def __init__(self, parts: "Mapping[str, tuple[Any, Leaf | Branch]]", *, is_tuple: bool = False) -> None:
        self._parts, self._is_tuple = parts, is_tuple
        self.spec = specs.Composite({key: part.spec for key, (_, part) in parts.items()})

    def read(self, value: Any, device: torch.device, rows: int) -> Batch:
        """Return arrays as tensors, [B, ...]."""
        found = {key: part.read(value[theirs], device, rows) for key, (theirs, part) in self._parts.items()}
        return TensorDict(found, batch_size=(rows,), device=device)

    def write(self, action: Any, arrays: str) -> Any:
        """Return actions [B, *A] as a simulator takes them."""
        found = {theirs: part.write(action[key], arrays) for key, (theirs, part) in self._parts.items()}
        return tuple(found.values()) if self._is_tuple else found

    def stack(self, values: Sequence[Any]) -> Any:
        """Return arrays of which each has one row as arrays of all these rows."""
        return {theirs: part.stack([v[theirs] for v in values]) for theirs, part in self._parts.values()}


def _are_bounds(low: Any, high: Any) -> bool:
    """Return whether a Box has bounds for all its numbers."""
    if np.asarray(low).dtype.kind != "f":
        info = np.iinfo(np.asarray(low).dtype) if np.asarray(low).dtype.kind in "iu" else None
        return info is not None and (
            info.bits == 8 or bool((low > info.min).all() and (high < info.max).all())
        )
    return bool((np.abs(low) < _NO_BOUND).all() and (np.abs(high) < _NO_BOUND).all())
