"""Specs describe the observations and actions of one environment: torchrl's, re-exported.

A spec has no batch dimension. A leaf has at least one dimension: a single discrete action is
`Categorical(n, shape=(1,))`, a single real number `Unbounded((1,))`.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    OneHot,
    TensorSpec,
    Unbounded,
)

__all__ = [
    "Binary",
    "Bounded",
    "Categorical",
    "Composite",
    "MultiCategorical",
    "OneHot",
    "TensorSpec",
    "Unbounded",
]

_HALF = (torch.bfloat16, torch.float16)
_TENSORS = (Tensor, TensorDict)

# Subclasses before their parents: torchrl's Binary and MultiCategorical are Categoricals.
_LEAVES = (Binary, MultiCategorical, OneHot, Categorical, Bounded, Unbounded)


def leaves(spec: TensorSpec, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TensorSpec]]:
    """Yield `(path, spec)` of each leaf below `path`; the path of a spec that is a leaf is as given."""
    if isinstance(spec, Composite):
        for key, child in spec.items():
            yield from leaves(child, (*path, str(key)))
    else:
        yield path, spec


def parts(value: Any, spec: TensorSpec) -> Iterator[tuple[tuple[str, ...], Tensor, TensorSpec]]:
    """Yield `(path, tensor, spec)` of each leaf of a tensor or TensorDict, as `leaves` orders them."""
    for path, leaf in leaves(spec):
        yield path, value[path] if path else value, leaf


def kind(spec: TensorSpec) -> type:
    """Return the public class among `rlstack.specs` that a leaf is an instance of.

    Raises:
        TypeError: If the spec is of another kind.
    """
    for cls in _LEAVES:
        if isinstance(spec, cls):
            return cls
    raise TypeError(
        f"{type(spec).__name__} is not a spec that rlstack knows: "
        f"use one of {', '.join(cls.__name__ for cls in _LEAVES)} or a Composite of them"
    )


def check_spec(spec: object, name: str) -> None:
    """Refuse a spec that rlstack can't store.

    Args:
        spec: `observation_spec` or `action_spec` of an environment, or `state_spec` of a model.
        name: What to call it in the error.

    Raises:
        TypeError: If it is no spec, or of an unknown kind.
        ValueError: If a leaf has no dimension, or there is no value that it allows.
    """
    if not isinstance(spec, TensorSpec):
        raise TypeError(f"{name} is {describe(spec)}, expected a spec: use {_spec_hint(spec)}")
    for path, leaf in leaves(spec, (name,)):
        cls = kind(leaf)
        if len(leaf.shape) == 0:
            raise ValueError(
                f"{'.'.join(path)} is a {cls.__name__} with shape (), expected a dimension: use shape=(1,)"
            )
        if problem := _no_values(leaf):
            raise ValueError(f"{'.'.join(path)} is a {cls.__name__} {problem}")


def _no_values(spec: TensorSpec) -> str | None:
    """Return in words why there is no value that a leaf allows, or None where there is one."""
    if kind(spec) is Bounded:
        low, high = spec.space.low.flatten(), spec.space.high.flatten()
        # Comparing with NaN is false as well.
        bad = (~(low <= high)).nonzero()
        if len(bad):
            where = int(bad[0])
            return f"from {low[where].item():g} to {high[where].item():g}, expected low <= high"
    most = num_values(spec)
    if most is not None and (fewest := int(torch.as_tensor(most).min())) < 1:
        return f"of {fewest} values, expected at least 1"
    return None


def num_values(spec: TensorSpec) -> Any:
    """Return how many values a leaf's numbers may have, from 0 on: an int or [*shape]; None if it is real."""
    match kind(spec):
        case cls if cls is Categorical:
            return int(spec.space.n)
        case cls if cls is MultiCategorical:
            return spec.nvec
        case cls if cls in (Binary, OneHot):
            return 2
    return None


def outside(value: Tensor, spec: TensorSpec) -> Tensor:
    """Return whether each number of a leaf [*N, *shape] isn't one that its spec allows, as bool.

    What is discrete is a whole number, of whatever dtype; a OneHot has a single 1.
    """
    most = num_values(spec)
    if isinstance(most, Tensor):
        most = most.to(value.device)
    if most is not None:
        bad = (value < 0) | (value >= most)
        if value.is_floating_point():
            bad |= value != value.trunc()
        return bad | (value.sum(-1, keepdim=True) != 1) if kind(spec) is OneHot else bad
    if kind(spec) is Bounded:
        return (value < spec.space.low.to(value.device)) | (value > spec.space.high.to(value.device))
    return torch.zeros_like(value, dtype=torch.bool)


def mismatch(
    value: object, spec: TensorSpec, rows: int, name: str, device: torch.device | None = None
) -> str | None:
    """Return in one sentence how a batch differs from its spec, or None where it doesn't.

    Args:
        value: [rows, ...]. What was got.
        spec: What one row must look like.
        rows: The expected first dimension.
        name: What to call the value in the sentence.
        device: Where it must be; None is anywhere.
    """
    if isinstance(spec, Composite):
        if not isinstance(value, TensorDict):
            advice = _ALONE if isinstance(value, tuple) else f"TensorDict(..., batch_size={rows})"
            keys = "the keys of its Composite spec"
            return f"{name} is {describe(value)}, expected a TensorDict with {keys}: {advice}"
        if value.batch_size[:1] != (rows,):
            return (
                f"{name} has batch size {list(value.batch_size)}, expected [{rows}]: "
                f"make it with TensorDict(..., batch_size={rows})"
            )
        expected, got = set(spec.keys()), set(value.keys())
        if expected != got:
            return f"{name} has the keys {sorted(got)}, expected {sorted(expected)}"
        parts = (mismatch(value.get(key), leaf, rows, f"{name}.{key}", device) for key, leaf in spec.items())
        return next((part for part in parts if part), None)
    if not isinstance(value, Tensor):
        advice = _ALONE if isinstance(value, tuple) else "convert it with torch.as_tensor"
        return f"{name} is {describe(value)}, expected a torch.Tensor: {advice}"
    # This is asked of every step: two looks cost less than a call.
    if value.is_nested or value.layout is not torch.strided:
        return not_dense(value, name)
    shape = (rows, *spec.shape)
    if value.shape != shape:
        return (
            f"{name} has shape {list(value.shape)}, expected {list(shape)}{_shape_hint(value.shape, shape)}"
        )
    if value.dtype != spec.dtype:
        return f"{name} has dtype {value.dtype}, expected {spec.dtype}: convert it with .to({spec.dtype})"
    if device is not None and not _is_on(value, device):
        return f"{name} is on {value.device}, expected {device}: make it with device=self.device"
    return None


def not_dense(value: Tensor, name: str) -> str | None:
    """Return in one sentence how a tensor isn't a dense one, or None where it is."""
    if value.is_nested:
        return f"{name} is a nested tensor, expected a dense one: pad its rows to the same length"
    if value.layout is not torch.strided:
        return f"{name} has layout {value.layout}, expected a dense tensor: convert it with .to_dense()"
    return None


def _is_on(value: Tensor, device: torch.device) -> bool:
    return value.device.type == device.type and device.index in (None, value.device.index)


def num_rows(value: object) -> int:
    """Return the first dimension of a tensor, a TensorDict or a mapping of them, 1 for what has none."""
    if isinstance(value, _TENSORS):
        return int(value.size(0)) if value.ndim else 1
    if isinstance(value, Mapping):
        return max((num_rows(part) for part in value.values()), default=1)
    return 1


def single(value: object, spec: TensorSpec, name: str) -> str | None:
    """Return in one sentence that a value is one row without a batch dimension, or None where it isn't."""
    if not _is_single(value, spec):
        return None
    made = name if isinstance(value, Tensor | TensorDict) else f"TensorDict({name})"
    return f"{name} is a single row: add a batch dimension, {made}[None]"


def _is_single(value: object, spec: TensorSpec) -> bool:
    if isinstance(spec, Composite):
        return isinstance(value, Mapping) and all(
            key in value and _is_single(value[key], leaf) for key, leaf in spec.items()
        )
    return isinstance(value, Tensor) and not value.is_nested and value.shape == spec.shape


def has_batch(spec: TensorSpec, rows: int) -> bool:
    """Return whether all leaves of a spec have a first dimension of so many rows, and others after it."""
    return all(len(leaf.shape) > 1 and leaf.shape[0] == rows for _, leaf in leaves(spec))


def zeros(form: Any, shape: tuple[int, ...], device: torch.device) -> Any:
    """Return zeros with leading dimensions `shape` before those of `form`, a spec or one row: storage."""
    if isinstance(form, Composite | TensorDict):
        content = {key: zeros(child, shape, device) for key, child in form.items()}
        return TensorDict(content, batch_size=shape, device=device)
    return torch.zeros((*shape, *form.shape), dtype=form.dtype, device=device)


def named(value: Tensor | TensorDict, *path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield dotted name and tensor of each leaf of a tensor or TensorDict, below a path."""
    if isinstance(value, Tensor):
        yield ".".join(path), value
    else:
        for key, part in value.items():
            yield from named(part, *path, key)


def describe(value: object) -> str:
    """Return in words what a value is: of a tensor its shape, of others the type with its package."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, TensorDict):
        return f"a TensorDict with batch_size={list(value.batch_size)}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    cls = type(value)
    name = cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__.split('.')[0]}.{cls.__name__}"
    return f"a {name}"


_ALONE = "return that alone, not as the first of several"

_SPACES = {
    "Box": "Bounded(low, high)",
    "Dict": "Composite(name=spec, ...)",
    "dict": "Composite(name=spec, ...)",
    "Discrete": "Categorical(n, shape=(1,))",
    "MultiBinary": "Binary(n)",
    "MultiDiscrete": "MultiCategorical(nvec)",
}
"""What to write for Gymnasium's spaces, and for a dictionary, by the name of their class."""


def _spec_hint(value: object) -> str:
    if isinstance(value, type) and issubclass(value, TensorSpec):
        return f"an instance, {value.__name__}(...)"
    said = _SPACES.get(type(value).__name__)
    return f"rlstack.specs.{said}" if said else "one of rlstack.specs"


def _shape_hint(got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if expected == (*got, 1):
        return ": add a trailing dimension, for example with unsqueeze(-1)"
    if got == expected[1:]:
        rows, *shape = expected
        if shape[0] == rows:
            return f": specs have no batch dimension, leave the {rows} out of the shape of its spec"
        return f": add the batch dimension, a row for each of {rows}"
    if len(got) > 1 and got == (expected[1], expected[0], *expected[2:]):
        return ": transpose it, the batch dimension is the first"
    if prod(got) == prod(expected):
        return ": reshape it"
    return ""


def upcast_half(value: Any) -> Any:
    """Return what a model returned in 16 bits as float32, the rest as it is."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    if any(leaf.dtype in _HALF for leaf in value.values(True, True)):
        return value.apply(upcast_half)
    return value
