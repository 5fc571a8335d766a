"""What the default models end in: features for an action spec."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from .. import specs
from ..common.types import LOG_STD, LOGITS, MEAN
from ..common.validation import is_number


class _Head(nn.Module, ABC):
    """Last layer of a default model: features of the action distribution from a hidden vector."""

    shape: tuple[int, ...]
    """Of one row of what it puts out."""
    linear: nn.Linear

    @abstractmethod
    def parts(self, output: Tensor) -> dict[str, Tensor]:
        """Return the features that the linear layer's output [*N, k] stands for, by name."""

    def features(self, output: Tensor) -> TensorDict:
        """Return the features that the linear layer's output [*N, k] stands for."""
        return TensorDict(dict[str, Any](self.parts(output)), batch_size=output.shape[:-1])

    def forward(self, hidden: Tensor) -> TensorDict:
        """Return the features for hidden vectors [*N, size]."""
        return self.features(self.linear(hidden))


@final
class _DiscreteHead(_Head):
    def __init__(self, size: int, action_spec: specs.TensorSpec) -> None:
        super().__init__()
        if specs.kind(action_spec) is specs.MultiCategorical:
            self.shape: tuple[int, ...] = (int(action_spec.nvec.sum()),)
        elif specs.kind(action_spec) in (specs.OneHot, specs.Binary):
            self.shape = tuple(action_spec.shape)
        elif specs.kind(action_spec) is specs.Categorical:
            self.shape = (*action_spec.shape, int(action_spec.space.n))
        else:
            raise _refusal("discrete", "Categorical, MultiCategorical, OneHot or Binary", action_spec)
        self.linear = _linear(size, _num_elements(self.shape), gain=0.01)

    def parts(self, output: Tensor) -> dict[str, Tensor]:
        return {LOGITS: output.unflatten(-1, self.shape)}


@final
class _ContinuousHead(_Head):
    """The mean depends on the observation, the standard deviation is a parameter of its own."""

    def __init__(
        self,
        size: int,
        action_spec: specs.TensorSpec,
        *,
        log_std_init: float = 0.0,
        min_log_std: float | None = None,
        max_log_std: float | None = None,
    ) -> None:
        super().__init__()
        if (
            specs.kind(action_spec) not in (specs.Unbounded, specs.Bounded)
            or not action_spec.dtype.is_floating_point
        ):
            raise _refusal("continuous", "floating Unbounded or Bounded", action_spec)
        self.shape = tuple(action_spec.shape)
        self.linear = _linear(size, _num_elements(self.shape), gain=0.01)
        _check_log_std(log_std_init, min_log_std, max_log_std)
        self.log_std = nn.Parameter(torch.full(self.shape, float(log_std_init)))
        self._bounds = min_log_std, max_log_std
        self.is_bounded = self._bounds != (None, None)
        """Whether log std is kept within bounds."""

    def bounded_log_std(self) -> Tensor:
        """Return log std as it counts, within its bounds: [*A]."""
        return self.log_std.clamp(*self._bounds) if self.is_bounded else self.log_std

    @torch.no_grad()
    def keep_in_bounds(self) -> None:
        """Put log std back onto a bound that it has passed: beyond it, no gradient would."""
        self.log_std.clamp_(*self._bounds)

    def parts(self, output: Tensor) -> dict[str, Tensor]:
        mean = output.unflatten(-1, self.shape)
        return {MEAN: mean, LOG_STD: self.bounded_log_std().to(mean.dtype).expand_as(mean)}


def bounded_heads(model: nn.Module) -> list[_ContinuousHead]:
    """Return the parts of a model whose log std has bounds that an optimizer step may pass."""
    found = [layer for layer in model.modules() if isinstance(layer, _ContinuousHead)]
    return [layer for layer in found if layer.is_bounded and layer.log_std.requires_grad]


def is_discrete(action_spec: specs.TensorSpec) -> bool:
    """Return whether the default models for discrete actions take this action spec."""
    return not isinstance(action_spec, specs.Composite) and specs.kind(action_spec) in (
        specs.Categorical,
        specs.MultiCategorical,
        specs.OneHot,
        specs.Binary,
    )


def _linear(before: int, after: int, *, gain: float) -> nn.Linear:
    """Return a linear layer with orthogonal weights and no bias at first (Saxe et al. 2014)."""
    linear = nn.Linear(before, after)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


_DEFAULTS = {"log_std_init": 0.0, "layer_norm": False}
"""Of options that rlstack 0.1.0 didn't have; that of all others is None."""


def _unusual(**options: Any) -> dict[str, Any]:
    """Return the options that aren't at their default: without them a policy's file is as it always was."""
    return {name: value for name, value in options.items() if value != _DEFAULTS.get(name)}


def _check_log_std(first: Any, lowest: Any, highest: Any) -> None:
    """Refuse a log std that is no number, or begins outside its bounds."""
    for name, value in (("log_std_init", first), ("min_log_std", lowest), ("max_log_std", highest)):
        if value is None and name != "log_std_init":
            continue
        if not is_number(value) or not math.isfinite(value):
            raise ValueError(f"model_config.{name} is {value!r}, expected a finite number")
    if lowest is not None and lowest > first:
        raise ValueError(f"model_config.min_log_std is {lowest}, expected at most log_std_init, {first}")
    if highest is not None and highest < first:
        raise ValueError(f"model_config.max_log_std is {highest}, expected at least log_std_init, {first}")


def _num_elements(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


def _refusal(model: str, expected: str, action_spec: specs.TensorSpec) -> TypeError:
    return TypeError(
        f"action_spec is {specs.kind(action_spec).__name__} of {action_spec.dtype}, expected {expected}: "
        f"the default {model} model can't act on it, give a model_cls of your own"
    )
