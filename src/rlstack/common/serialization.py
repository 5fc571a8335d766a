"""Nested values as JSON and a table of tensors: what checkpoints are made of. No pickle, no code.

JSON has no tuples, no tensors, no keys but text, and no NaN. So a dictionary becomes `{"dict": [[key, value],
…]}`, a tuple `{"tuple": […]}`, a tensor `{"tensor": name}`, an array `{"array": name}` and a float that JSON
lacks `{"float": text}`; all else is as it is.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from tensordict import TensorDict
from torch import Tensor


def pack(tree: Any, name: str) -> tuple[Any, dict[str, Tensor]]:
    """Return nested values as JSON can hold them, and copies of the tensors among them, by name.

    Args:
        tree: Dictionaries, lists, tuples, tensors, arrays, numbers, texts, True, False and None.
        name: What to call it in names and errors.

    Raises:
        TypeError: If there is anything else in it, or a tensor that no file can hold; says where.
    """
    tensors: dict[str, Tensor] = {}

    def store(value: Tensor, path: str) -> str:
        key = path
        while key in tensors:
            key += "~"
        tensors[key] = storable(value, path)
        return key

    def walk(value: Any, path: str) -> Any:
        match value:
            case None | bool() | str():
                return value
            case Tensor():
                return {"tensor": store(value, path)}
            case np.ndarray() if value.dtype.kind in "biuf":
                return {"array": store(torch.from_numpy(np.ascontiguousarray(value)), path)}
            case np.generic() if value.dtype.kind in "biuf":
                return walk(value.item(), path)
            case int():
                return int(value)
            case float():
                return float(value) if math.isfinite(value) else {"float": str(float(value))}
            case TensorDict():
                return walk(value.to_dict(), path)
            case Mapping():
                return {"dict": [[walk(k, path), walk(v, f"{path}.{k}")] for k, v in value.items()]}
            case list():
                return [walk(item, f"{path}.{n}") for n, item in enumerate(value)]
            case tuple():
                return {"tuple": [walk(item, f"{path}.{n}") for n, item in enumerate(value)]}
        raise TypeError(
            f"{path} is a {type(value).__name__}, which a checkpoint can't hold: keep it as numbers, texts, "
            "lists, dictionaries or tensors"
        )

    return walk(tree, name), tensors


def storable(value: Tensor, name: str) -> Tensor:
    """Return a copy of a tensor as a file can hold it: on the CPU, in order, its memory shared with no other.

    Args:
        value: Laid out in any way, strides of 0 among them.
        name: What to call it in errors.

    Raises:
        TypeError: If no file can hold it: it isn't dense, or of a dtype that safetensors lacks.
    """
    if value.layout != torch.strided or value.is_quantized or not _has_format(value.dtype):
        kind = value.dtype if value.layout == torch.strided else value.layout
        raise TypeError(
            f"{name} is a {str(kind).removeprefix('torch.')} tensor, which no file of rlstack can hold: keep "
            "it as a dense tensor of another dtype, or where it can be made anew, as a buffer with "
            "persistent=False"
        )
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


@cache
def _has_format(dtype: torch.dtype) -> bool:
    """Return whether safetensors has a name for a dtype; it asks its table for that and raises KeyError."""
    try:
        save({"": torch.empty(0, dtype=dtype)})
    except KeyError:
        return False
    return True


def is_dense(value: Tensor) -> bool:
    """Return whether each element has a place of its own in memory, with no gaps in between, in any order."""
    if value.layout != torch.strided:
        return False
    # What is made like it has its strides just then.
    return torch.empty_like(value, device="meta").stride() == value.stride()


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the nested values that `pack` was given.

    Raises:
        ValueError: If this isn't what `pack` returned.
    """
    match packed:
        case {"tensor": str(name), **rest} if not rest and name in tensors:
            return tensors[name]
        case {"array": str(name), **rest} if not rest and name in tensors:
            return tensors[name].numpy()
        case {"float": "nan" | "inf" | "-inf" as text, **rest} if not rest:
            return float(text)
        case {"tuple": list(items), **rest} if not rest:
            return tuple(unpack(item, tensors) for item in items)
        case {"dict": list(items), **rest} if not rest and all(
            isinstance(item, list) and len(item) == 2 for item in items
        ):
            return {_key(unpack(key, tensors)): unpack(value, tensors) for key, value in items}
        case list():
            return [unpack(item, tensors) for item in packed]
        case None | bool() | int() | float() | str():
            return packed
    raise ValueError(f"{str(packed)[:80]} is no packed value")


def detached(tree: Any) -> Any:
    """Return nested values whose tensors don't require grad; those that didn't are the same ones."""
    if isinstance(tree, Tensor | TensorDict):
        return tree.detach() if tree.requires_grad else tree
    if isinstance(tree, Mapping):
        return {key: detached(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        values = [detached(value) for value in tree]
        return values if isinstance(tree, list) else tuple(values)
    return tree


def _key(key: Any) -> Any:
    if not isinstance(key, str | int | float | bool | tuple | None):
        raise ValueError(f"a {type(key).__name__} is no key")
    return key


def same(one: object, other: object) -> bool:
    """Return whether two values are the same, tensors and arrays in mappings included."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    equal: Any = one == other
    return np.ndim(equal) == 0 and bool(equal)


def tensors_of(*values: Any) -> list[Tensor]:
    """Return the tensors that are, or are in, tensors and TensorDicts; None has none."""
    found: list[Tensor] = []
    for value in values:
        if value is not None:
            found += [value] if isinstance(value, Tensor) else list(value.values(True, True))
    return found


@torch.no_grad()
def copy_into(source: Any, target: Tensor | TensorDict) -> None:
    """Copy a tensor, or a dictionary or TensorDict of them, leaf by leaf."""
    if isinstance(target, Tensor):
        target.copy_(source)
    else:
        for key, value in source.items():
            copy_into(value, target[key])
