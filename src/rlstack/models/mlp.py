"""Default models without a state."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, final

from tensordict import TensorDict
from torch import Tensor, nn

from .. import specs
from ..common.types import Batch
from ..common.validation import did_you_mean
from .base import Model
from .encoder import make_encoders
from .heads import _ContinuousHead, _DiscreteHead, _linear

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
        policy_keys: Sequence[str] | None = None,
        value_keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            hiddens=hiddens,
            activation_fn=activation_fn,
            policy_keys=policy_keys,
            value_keys=value_keys,
        )
        if str(activation_fn) not in ACTIVATIONS:
            known = did_you_mean(str(activation_fn), ACTIVATIONS)
            raise ValueError(f"activation_fn is {activation_fn!r}{known}")
        _check_sizes("hiddens", hiddens)
        self.policy_keys = policy_keys
        self.encoder, self.value_encoder = make_encoders(self.observation_spec, policy_keys, value_keys)
        sizes = [self.encoder.size, *hiddens]
        self.policy = nn.Sequential(*_layers(sizes, activation_fn), self.head_cls(sizes[-1], action_spec))
        if self.value_encoder is not None:
            sizes[0] = self.value_encoder.size
        self.value = nn.Sequential(*_layers(sizes, activation_fn), _linear(sizes[-1], 1, gain=1.0))

    def forward(self, obs: Batch) -> tuple[TensorDict, Tensor]:
        """Return features [N, ...] and values [N, 1] for observations [N, ...]."""
        vectors = self.encoder(obs)
        seen = vectors if self.value_encoder is None else self.value_encoder(obs)
        return self.policy(vectors), self.value(seen)

    def policy_features(self, obs: Batch) -> TensorDict:
        """Return features [N, ...] for observations [N, ...] that may lack what the policy doesn't see."""
        features: TensorDict = self.policy(self.encoder(obs))
        return features


@final
class DiscreteMLP(_MLP):
    """The default feedforward model for Categorical and MultiCategorical actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hiddens: Sizes of the hidden layers, of the policy network and of the value network alike.
        activation_fn: Name of the activation function, one of `ACTIVATIONS`.
        policy_keys: Keys of Composite observations that the policy sees, nested ones as "a.b"; None is all.
        value_keys: Keys that the values are made from; None is all.
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
        policy_keys: Keys of Composite observations that the policy sees, nested ones as "a.b"; None is all.
        value_keys: Keys that the values are made from; None is all.
    """

    head_cls = _ContinuousHead


def _check_sizes(name: str, sizes: object) -> None:
    whole = isinstance(sizes, Sequence) and all(type(size) is int and size > 0 for size in sizes)
    if not whole or not sizes:
        raise ValueError(f"model_config.{name} is {sizes!r}, expected at least one positive whole number")


def _layers(sizes: Sequence[int], activation_fn: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [_linear(before, after, gain=2**0.5), ACTIVATIONS[activation_fn]()]
    return layers
