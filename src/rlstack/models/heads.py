"""What the default models end in: features for an action spec."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from .. import specs
from ..common.types import LOG_STD, LOGITS, MEAN


class _Head(nn.Module, ABC):
    """Last layer of a default model: features of the action distribution from a hidden vector."""

    shape: tuple[int, ...]
    """Of one row of what it puts out."""
    linear: nn.Linear

    @abstractmethod
    def features(self, output: Tensor) -> TensorDict:
        """Return the features that the linear layer's output [*N, k] stands for."""

    def forward(self, hidden: Tensor) -> TensorDict:
        """Return the features for hidden vectors [*N, size]."""
        return self.features(self.linear(hidden))


@final
class _DiscreteHead(_Head):
    def __init__(self, size: int, action_spec: specs.TensorSpec) -> None:
        super().__init__()
        if specs.kind(action_spec) is specs.MultiCategorical:
            self.shape: tuple[int, ...] = (int(action_spec.nvec.sum()),)
        elif specs.kind(action_spec) is specs.Categorical:
            self.shape = (*action_spec.shape, int(action_spec.space.n))
        else:
            raise _refusal("discrete", "Categorical or MultiCategorical", action_spec)
        self.linear = _linear(size, _num_elements(self.shape), gain=0.01)

    def features(self, output: Tensor) -> TensorDict:
        return TensorDict({LOGITS: output.unflatten(-1, self.shape)}, batch_size=output.shape[:-1])


@final
class _ContinuousHead(_Head):
    """The mean depends on the observation, the standard deviation is a parameter of its own."""

    def __init__(self, size: int, action_spec: specs.TensorSpec) -> None:
        super().__init__()
        if (
            specs.kind(action_spec) not in (specs.Unbounded, specs.Bounded)
            or not action_spec.dtype.is_floating_point
        ):
            raise _refusal("continuous", "floating Unbounded or Bounded", action_spec)
        self.shape = tuple(action_spec.shape)
        self.linear = _linear(size, _num_elements(self.shape), gain=0.01)
        self.log_std = nn.Parameter(torch.zeros(self.shape))

    def features(self, output: Tensor) -> TensorDict:
        mean = output.unflatten(-1, self.shape)
        features = {MEAN: mean, LOG_STD: self.log_std.to(mean.dtype).expand_as(mean)}
        return TensorDict(features, batch_size=output.shape[:-1])


def is_discrete(action_spec: specs.TensorSpec) -> bool:
    """Return whether the default models for discrete actions take this action spec."""
    return not isinstance(action_spec, specs.Composite) and specs.kind(action_spec) in (
        specs.Categorical,
        specs.MultiCategorical,
    )


def _linear(before: int, after: int, *, gain: float) -> nn.Linear:
    """Return a linear layer with orthogonal weights and no bias at first (Saxe et al. 2014)."""
    linear = nn.Linear(before, after)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


def _num_elements(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


def _refusal(model: str, expected: str, action_spec: specs.TensorSpec) -> TypeError:
    return TypeError(
        f"action_spec is {specs.kind(action_spec).__name__} of {action_spec.dtype}, expected {expected}: "
        f"the default {model} model can't act on it, give a model_cls of your own"
    )
