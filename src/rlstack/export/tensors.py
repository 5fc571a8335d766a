"""Observations, actions and recurrent states as plain tensors, and as specs nest them."""

from collections.abc import Sequence
from typing import Any

from tensordict import TensorDict
from torch import Tensor

from .. import specs


def names(root: str, spec: specs.TensorSpec) -> list[str]:
    """Return the dotted names of a spec's leaves below `root`, as `specs.leaves` orders them."""
    return [".".join((root, *path)) for path, _ in specs.leaves(spec)]


def apart(spec: specs.TensorSpec, value: Any) -> list[Tensor]:
    """Return the leaves of a tensor or TensorDict, as `specs.leaves` orders them."""
    return [part for _, part, _ in specs.parts(value, spec)]


def together(spec: specs.TensorSpec, parts: Sequence[Tensor]) -> Any:
    """Return tensors [N, ...] as the spec nests them, what `apart` took apart."""
    if not isinstance(spec, specs.Composite):
        return parts[0]
    rest, rows = iter(parts), parts[0].shape[:1]

    def nested(spec: specs.Composite) -> TensorDict:
        found = {}
        for key, child in spec.items():
            found[key] = nested(child) if isinstance(child, specs.Composite) else next(rest)
        return TensorDict(found, batch_size=rows)

    return nested(spec)
