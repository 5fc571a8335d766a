"""Specs as JSON, and what differs between two of them."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch

from . import specs
from .specs import TensorSpec, kind, leaves, num_values


def differences(name: str, one: TensorSpec, other: TensorSpec) -> Iterator[tuple[str, str, str]]:
    """Yield how a spec differs from another one, field by field.

    Args:
        name: Of the spec.
        one: The one.
        other: The other.

    Yields:
        What differs, like `observation_spec.body.shape`, and what it is of the one and of the other.
    """
    mine, theirs = ({".".join(path): leaf for path, leaf in leaves(spec, (name,))} for spec in (one, other))
    if list(mine) != list(theirs) and set(mine) == set(theirs):
        yield f"the order of {name}", ", ".join(mine), ", ".join(theirs)
    for path in dict.fromkeys(chain(mine, theirs)):
        if path not in mine or path not in theirs:
            yield path, _said(mine.get(path)), _said(theirs.get(path))
            continue
        fields, others = _fields(mine[path]), _fields(theirs[path])
        if fields["kind"] != others["kind"]:
            yield path, _said(mine[path]), _said(theirs[path])
            continue
        changed = [(key, value, others[key]) for key, value in fields.items() if value != others[key]]
        for key, value, its in changed or _bounds(mine[path], theirs[path]):
            yield f"{path}.{key}", value, its


def _fields(leaf: TensorSpec) -> dict[str, str]:
    """Return what a leaf is, its bounds apart, as texts."""
    values = num_values(leaf)
    if isinstance(values, torch.Tensor):
        values = values.tolist()
    dtype = str(leaf.dtype).removeprefix("torch.")
    return {
        "kind": kind(leaf).__name__,
        "shape": str(list(leaf.shape)),
        "dtype": dtype,
        "number of values": str(values),
    }


def _said(leaf: TensorSpec | None) -> str:
    return "missing" if leaf is None else f"{kind(leaf).__name__} of shape {list(leaf.shape)}"


def _bounds(one: TensorSpec, other: TensorSpec) -> Iterator[tuple[str, str, str]]:
    """Yield which bound of two leaves of the same form differs first, and how many more do."""
    if kind(one) is not specs.Bounded:
        return
    for side in ("low", "high"):
        mine, theirs = (getattr(leaf.space, side).cpu() for leaf in (one, other))
        places = (mine != theirs).nonzero().tolist()
        if places:
            first, more = tuple(places[0]), len(places) - 1
            where = f"{side}{list(first)}{f' (and {more} more)' if more else ''}"
            yield where, f"{mine[first].item():g}", f"{theirs[first].item():g}"


def to_json(spec: TensorSpec) -> str:
    """Return the spec as JSON, of the named kinds only.

    Raises:
        TypeError: If a leaf is of another kind.
    """
    return json.dumps(_to_plain(spec))


def from_json(text: str) -> TensorSpec:
    """Return the spec that `to_json` wrote.

    Raises:
        ValueError: If the text is not such JSON.
    """
    try:
        return _from_plain(json.loads(text))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"not a spec: {text[:200]}") from error


def _to_plain(spec: TensorSpec) -> dict[str, Any]:
    if isinstance(spec, specs.Composite):
        return {"type": "Composite", "keys": {str(key): _to_plain(child) for key, child in spec.items()}}
    cls = kind(spec)
    plain: dict[str, Any] = {
        "type": cls.__name__,
        "shape": list(spec.shape),
        "dtype": str(spec.dtype).removeprefix("torch."),
    }
    if cls is specs.Bounded:
        plain |= {"low": spec.space.low.tolist(), "high": spec.space.high.tolist()}
    elif cls is specs.MultiCategorical:
        plain["nvec"] = spec.nvec.tolist()
    elif cls in (specs.Categorical, specs.OneHot):
        plain["n"] = int(spec.space.n)
    return plain


def _from_plain(plain: dict[str, Any]) -> TensorSpec:
    if plain["type"] == "Composite":
        return specs.Composite({key: _from_plain(value) for key, value in plain["keys"].items()})
    shape, dtype = torch.Size(plain["shape"]), getattr(torch, plain["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{plain['dtype']!r} is not a dtype of torch")
    match plain["type"]:
        case "Unbounded":
            return specs.Unbounded(shape, dtype=dtype)
        case "Bounded":
            low, high = (torch.tensor(plain[key], dtype=dtype) for key in ("low", "high"))
            return specs.Bounded(low, high, shape, dtype=dtype)
        case "Categorical":
            return specs.Categorical(plain["n"], shape=shape, dtype=dtype)
        case "MultiCategorical":
            return specs.MultiCategorical(plain["nvec"], shape=shape, dtype=dtype)
        case "Binary":
            return specs.Binary(shape=shape, dtype=dtype)
        case "OneHot":
            return specs.OneHot(plain["n"], shape=shape, dtype=dtype)
    raise ValueError(f"{plain['type']!r} is not a spec type")
