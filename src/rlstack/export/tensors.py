"""Observations, actions and recurrent states as plain tensors, and as specs nest them."""

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from .. import specs


def names(root: str, spec: specs.TensorSpec) -> list[str]:
    """Return the dotted names of a spec's leaves below `root`, as `specs.leaves` orders them."""
    return [".".join((root, *path)) for path, _ in specs.leaves(spec)]


def apart(spec: specs.TensorSpec, value: Any) -> list[Tensor]:
    """Return the leaves of a tensor or TensorDict, as `specs.leaves` orders them."""
    return [part for _, part, _ in specs.parts(value, spec)]


def together(spec: specs.TensorSpec, parts: Sequence[Tensor], rows: int) -> Any:
    """Return tensors [rows, ...] as the spec nests them, what `apart` took apart."""
    if not isinstance(spec, specs.Composite):
        return parts[0]
    rest = iter(parts)

    def nested(spec: specs.Composite) -> TensorDict:
        found = {}
        for key, child in spec.items():
            found[key] = nested(child) if isinstance(child, specs.Composite) else next(rest)
        return TensorDict(found, batch_size=[rows])

    return nested(spec)


def random_obs(spec: specs.TensorSpec, rows: int, device: torch.device) -> Any:
    """Return random observations [rows, ...] within a spec."""
    if isinstance(spec, specs.Composite):
        content = {key: random_obs(child, rows, device) for key, child in spec.items()}
        return TensorDict(content, batch_size=rows, device=device)
    if spec.dtype.is_floating_point and specs.num_values(spec) is None:
        obs = torch.randn((rows, *spec.shape), dtype=spec.dtype, device=device)
        return obs.clamp(spec.space.low, spec.space.high) if isinstance(spec, specs.Bounded) else obs
    if specs.kind(spec) is specs.Unbounded:
        return specs.zeros(spec, (rows,), device)
    return spec.to(device).rand((rows,))
