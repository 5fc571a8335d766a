"""Models: how a policy turns observations into the features of its action distribution, and values."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, final

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from . import specs
from .data import LOG_STD, LOGITS, MEAN, Batch
from .encoders import ObservationEncoder
from .hparams import did_you_mean

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}
"""Activation functions by the name that `activation_fn` takes."""


class _Network(nn.Module, ABC):
    """What feedforward and recurrent models share: they know their specs and their own options."""

    def __init__(
        self, observation_spec: specs.TensorSpec, action_spec: specs.TensorSpec, /, **config: Any
    ) -> None:
        super().__init__()
        # On the CPU: reading a number of choices from a spec on a GPU would wait for the GPU.
        self.observation_spec = observation_spec.to("cpu")
        self.action_spec = action_spec.to("cpu")
        self.config = config


class Model(_Network):
    """A feedforward model.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        config: The model's own options, kept so that a saved policy can be made again.
    """

    @abstractmethod
    def forward(self, obs: Any) -> tuple[TensorDict, Tensor]:
        """Return the features of the action distribution and the values.

        Args:
            obs: [N, ...]. Observations.

        Returns:
            Features [N, ...] and values [N, 1].
        """


class RecurrentModel(_Network):
    """A model with a state that it carries from step to step; its arguments are those of `Model`."""

    state_spec: specs.Composite
    """State of one environment; it is all zeros at the start of an episode."""

    @abstractmethod
    def forward(self, obs: Any, state: TensorDict) -> tuple[TensorDict, Tensor, TensorDict]:
        """Return the features of the action distribution, the values, and the state after the last step.

        Args:
            obs: [N, L, ...]. Sequences of observations.
            state: [N, ...]. State before the first step of each.

        Returns:
            Features [N, L, ...], values [N, L, 1] and state [N, ...].
        """


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


class _MLP(Model):
    """Two separate multilayer perceptrons, one for the features and one for the values."""

    head_cls: ClassVar[type[nn.Module]]

    def __init__(
        self,
        observation_spec: specs.TensorSpec,
        action_spec: specs.TensorSpec,
        /,
        hiddens: Sequence[int] = (256, 256),
        activation_fn: str = "relu",
    ) -> None:
        super().__init__(observation_spec, action_spec, hiddens=hiddens, activation_fn=activation_fn)
        if str(activation_fn) not in ACTIVATIONS:
            known = did_you_mean(str(activation_fn), ACTIVATIONS)
            raise ValueError(f"activation_fn is {activation_fn!r}{known}")
        _check_sizes("hiddens", hiddens)
        self.encoder = ObservationEncoder(self.observation_spec)
        sizes = [self.encoder.size, *hiddens]
        self.policy = nn.Sequential(*_layers(sizes, activation_fn), self.head_cls(sizes[-1], action_spec))
        self.value = nn.Sequential(*_layers(sizes, activation_fn), _linear(sizes[-1], 1, gain=1.0))

    def forward(self, obs: Batch) -> tuple[TensorDict, Tensor]:
        """Return features [N, ...] and values [N, 1] for observations [N, ...]."""
        vectors = self.encoder(obs)
        return self.policy(vectors), self.value(vectors)


@final
class DiscreteMLP(_MLP):
    """The default feedforward model for Categorical and MultiCategorical actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hiddens: Sizes of the hidden layers, of the policy network and of the value network alike.
        activation_fn: Name of the activation function, one of `ACTIVATIONS`.
    """

    head_cls = _DiscreteHead


@final
class ContinuousMLP(_MLP):
    """The default feedforward model for floating Unbounded and Bounded actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hiddens: Sizes of the hidden layers, of the policy network and of the value network alike.
        activation_fn: Name of the activation function, one of `ACTIVATIONS`.
    """

    head_cls = _ContinuousHead


class _LSTM(RecurrentModel):
    """One long short-term memory with a linear layer for the features and one for the values."""

    head_cls: ClassVar[type[nn.Module]]

    def __init__(
        self,
        observation_spec: specs.TensorSpec,
        action_spec: specs.TensorSpec,
        /,
        hidden_size: int = 256,
        num_layers: int = 1,
    ) -> None:
        super().__init__(observation_spec, action_spec, hidden_size=hidden_size, num_layers=num_layers)
        _check_sizes("hidden_size", [hidden_size])
        _check_sizes("num_layers", [num_layers])
        self.encoder = ObservationEncoder(self.observation_spec)
        self.lstm = nn.LSTM(self.encoder.size, hidden_size, num_layers, batch_first=True)
        self.policy = self.head_cls(hidden_size, action_spec)
        self.value = _linear(hidden_size, 1, gain=1.0)
        shape = (num_layers, hidden_size)
        dtype = self.value.weight.dtype
        self.state_spec = specs.Composite(
            hidden=specs.Unbounded(shape, dtype=dtype), cell=specs.Unbounded(shape, dtype=dtype)
        )

    def forward(self, obs: Batch, state: TensorDict) -> tuple[TensorDict, Tensor, TensorDict]:
        """Return features [N, L, ...], values [N, L, 1] and the next state [N, ...]."""
        # torch's LSTM wants its states layer by layer, [num_layers, N, hidden_size].
        before = (state["hidden"].transpose(0, 1).contiguous(), state["cell"].transpose(0, 1).contiguous())
        outputs, (hidden, cell) = self.lstm(self.encoder(obs), before)
        after = TensorDict(
            {"hidden": hidden.transpose(0, 1), "cell": cell.transpose(0, 1)}, batch_size=state.batch_size
        )
        return self.policy(outputs), self.value(outputs), after


@final
class DiscreteLSTM(_LSTM):
    """The default recurrent model for Categorical and MultiCategorical actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hidden_size: Size of the memory.
        num_layers: How many memories stand on top of each other.
    """

    head_cls = _DiscreteHead


@final
class ContinuousLSTM(_LSTM):
    """The default recurrent model for floating Unbounded and Bounded actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hidden_size: Size of the memory.
        num_layers: How many memories stand on top of each other.
    """

    head_cls = _ContinuousHead


def is_discrete(action_spec: specs.TensorSpec) -> bool:
    """Return whether the default models for discrete actions take this action spec."""
    return not isinstance(action_spec, specs.Composite) and specs.kind(action_spec) in (
        specs.Categorical,
        specs.MultiCategorical,
    )


def _check_sizes(name: str, sizes: object) -> None:
    whole = isinstance(sizes, Sequence) and all(type(size) is int and size > 0 for size in sizes)
    if not whole or not sizes:
        raise ValueError(f"model_config.{name} is {sizes!r}, expected at least one positive whole number")


def _layers(sizes: Sequence[int], activation_fn: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [_linear(before, after, gain=2**0.5), ACTIVATIONS[activation_fn]()]
    return layers


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
