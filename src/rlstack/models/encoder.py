"""Observations of any spec as one vector of numbers, for the default models."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from .. import specs
from ..common.types import Batch
from .keys import select


@final
class ObservationEncoder(nn.Module):
    """Flattens observations into one vector of numbers, discrete parts one-hot; has no parameters.

    Args:
        observation_spec: Of one environment; a leaf or a (nested) Composite.
    """

    size: int
    """Length of the vector."""

    def __init__(self, observation_spec: specs.TensorSpec) -> None:
        super().__init__()
        self._leaves = list(specs.leaves(observation_spec))
        (_, leaf), *others = self._leaves
        # Already what it is to become.
        self._plain = (
            not others
            and specs.kind(leaf) in (specs.Unbounded, specs.Bounded)
            and leaf.dtype == torch.get_default_dtype()
            and len(leaf.shape) == 1
        )
        self.size = sum(_encoded_size(leaf) for _, leaf in self._leaves)

    def forward(self, obs: Batch) -> Tensor:
        """Return observations [*N, ...] as vectors [*N, size]."""
        if self._plain and isinstance(obs, Tensor):
            return obs
        if isinstance(obs, Tensor):
            return _encode(obs, self._leaves[0][1])
        return torch.cat([_encode(obs[path], leaf) for path, leaf in self._leaves], -1)


def make_encoders(
    observation_spec: specs.TensorSpec, policy_keys: Sequence[str] | None, value_keys: Sequence[str] | None
) -> tuple[ObservationEncoder, ObservationEncoder | None]:
    """Return what encodes for the policy, and what does for the values: None if that is the same.

    Args:
        observation_spec: Of one environment.
        policy_keys: What of a Composite the policy sees; None is all.
        value_keys: What of it the values are made from; None is all.

    Raises:
        ValueError: If they aren't keys of the observations.
    """
    policy, value = (
        select(observation_spec, keys, f"model_config.{name}")
        for name, keys in (("policy_keys", policy_keys), ("value_keys", value_keys))
    )
    same = [path for path, _ in specs.leaves(policy)] == [path for path, _ in specs.leaves(value)]
    return ObservationEncoder(policy), None if same else ObservationEncoder(value)


def _encoded_size(spec: specs.TensorSpec) -> int:
    match specs.kind(spec):
        case specs.Categorical:
            return spec.shape.numel() * int(spec.space.n)
        case specs.MultiCategorical:
            return int(spec.nvec.sum())
    return int(spec.shape.numel())


def _encode(obs: Tensor, spec: specs.TensorSpec) -> Tensor:
    """Return a leaf's observations [*N, *shape] as vectors [*N, size]."""
    dims = len(spec.shape)
    dtype = torch.get_default_dtype()
    match specs.kind(spec):
        case specs.Categorical:
            obs = _one_hot(obs, int(spec.space.n))
            dims += 1
        case specs.MultiCategorical:
            parts = obs.flatten(-dims).unbind(-1)
            sizes = spec.nvec.flatten().tolist()
            hot = [_one_hot(part, n) for part, n in zip(parts, sizes, strict=True)]
            return torch.cat(hot, -1).to(dtype)
    return obs.flatten(-dims).to(dtype)


def _one_hot(values: Tensor, n: int) -> Tensor:
    """Return whether each value is 0 … n − 1, in a new last dimension: none of them where it is out of range.

    torch's own one_hot would stop a GPU for good there; `Buffer.first_out_of_range` finds it.
    """
    return values.unsqueeze(-1) == torch.arange(n, device=values.device)
