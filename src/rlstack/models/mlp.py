"""Default models without a state."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, final

from tensordict import TensorDict
from torch import Tensor, nn

from .. import specs
from ..common.types import Batch
from ..common.validation import did_you_mean
from .base import Model, RecurrentModel
from .encoder import ObservationEncoder, make_encoders
from .heads import _ContinuousHead, _DiscreteHead, _linear, _unusual
from .masks import ActionMask

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
        *,
        policy_keys: Sequence[str] | None = None,
        value_keys: Sequence[str] | None = None,
        value_hiddens: Sequence[int] | None = None,
        layer_norm: bool = False,
        action_mask_key: str | None = None,
        **head: Any,
    ) -> None:
        keys = {"policy_keys": policy_keys, "value_keys": value_keys, "action_mask_key": action_mask_key}
        unusual = _unusual(value_hiddens=value_hiddens, layer_norm=layer_norm, **keys, **head)
        super().__init__(
            observation_spec, action_spec, hiddens=hiddens, activation_fn=activation_fn, **unusual
        )
        if str(activation_fn) not in ACTIVATIONS:
            known = did_you_mean(str(activation_fn), ACTIVATIONS)
            raise ValueError(f"activation_fn is {activation_fn!r}{known}")
        _check_sizes("hiddens", hiddens)
        if value_hiddens is None:
            value_hiddens = hiddens
        _check_sizes("value_hiddens", value_hiddens)
        if type(layer_norm) is not bool:
            raise ValueError(f"model_config.layer_norm is {layer_norm!r}, expected True or False")
        self.policy_keys, self.action_mask_key = policy_keys, action_mask_key
        self.encoder, self.value_encoder = make_encoders(_without_mask(self), policy_keys, value_keys)

        def layers(encoder: ObservationEncoder, sizes: Sequence[int]) -> list[nn.Module]:
            return _layers([encoder.size, *sizes], activation_fn, layer_norm=layer_norm)

        policy_layers = layers(self.encoder, hiddens)
        self.policy = nn.Sequential(*policy_layers, self.head_cls(hiddens[-1], action_spec, **head))
        value_layers = layers(self.value_encoder or self.encoder, value_hiddens)
        self.value = nn.Sequential(*value_layers, _linear(value_hiddens[-1], 1, gain=1.0))

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
    """The default feedforward model for Categorical, MultiCategorical, OneHot and Binary actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hiddens: Sizes of the hidden layers.
        activation_fn: Name of the activation function, one of `ACTIVATIONS`.
        policy_keys: Keys of Composite observations that the policy sees, nested ones as "a.b"; None is all.
        value_keys: Keys that the values are made from; None is all.
        value_hiddens: Sizes of the value network's hidden layers; None takes `hiddens`.
        layer_norm: Whether a LayerNorm stands between each hidden layer and its activation function (Ba et
            al. 2016); there is no kernel for that, autograd does it.
        action_mask_key: Name of a bool leaf of the observations, "a.b" if nested, that is True where an
            action is allowed: [*A, n], of a MultiCategorical [sum(nvec)]. The networks don't see it.
    """

    head_cls = _DiscreteHead

    def __init__(
        self,
        observation_spec: specs.TensorSpec,
        action_spec: specs.TensorSpec,
        /,
        hiddens: Sequence[int] = (256, 256),
        activation_fn: str = "relu",
        *,
        policy_keys: Sequence[str] | None = None,
        value_keys: Sequence[str] | None = None,
        value_hiddens: Sequence[int] | None = None,
        layer_norm: bool = False,
        action_mask_key: str | None = None,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            hiddens=hiddens,
            activation_fn=activation_fn,
            policy_keys=policy_keys,
            value_keys=value_keys,
            value_hiddens=value_hiddens,
            layer_norm=layer_norm,
            action_mask_key=action_mask_key,
        )


@final
class ContinuousMLP(_MLP):
    """The default feedforward model for floating Unbounded and Bounded actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hiddens: Sizes of the hidden layers.
        activation_fn: Name of the activation function, one of `ACTIVATIONS`.
        policy_keys: Keys of Composite observations that the policy sees, nested ones as "a.b"; None is all.
        value_keys: Keys that the values are made from; None is all.
        value_hiddens: Sizes of the value network's hidden layers; None takes `hiddens`.
        layer_norm: Whether a LayerNorm stands between each hidden layer and its activation function (Ba et
            al. 2016); there is no kernel for that, autograd does it.
        log_std_init: Logarithm of the standard deviation at first; -2 explores little, in units of half the
            distance of the bounds where there are some.
        min_log_std: Its lower bound, onto which it is put back after an optimizer step; None is none.
        max_log_std: Its upper bound.
    """

    head_cls = _ContinuousHead

    def __init__(
        self,
        observation_spec: specs.TensorSpec,
        action_spec: specs.TensorSpec,
        /,
        hiddens: Sequence[int] = (256, 256),
        activation_fn: str = "relu",
        *,
        policy_keys: Sequence[str] | None = None,
        value_keys: Sequence[str] | None = None,
        value_hiddens: Sequence[int] | None = None,
        layer_norm: bool = False,
        log_std_init: float = 0.0,
        min_log_std: float | None = None,
        max_log_std: float | None = None,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            hiddens=hiddens,
            activation_fn=activation_fn,
            policy_keys=policy_keys,
            value_keys=value_keys,
            value_hiddens=value_hiddens,
            layer_norm=layer_norm,
            log_std_init=log_std_init,
            min_log_std=min_log_std,
            max_log_std=max_log_std,
        )


def _without_mask(model: Model | RecurrentModel) -> specs.TensorSpec:
    """Return the spec of what the networks of a default model see."""
    spec, key = model.observation_spec, model.action_mask_key
    return spec if key is None else ActionMask(key, spec, model.action_spec).rest(spec)


def _check_sizes(name: str, sizes: object) -> None:
    whole = isinstance(sizes, Sequence) and all(type(size) is int and size > 0 for size in sizes)
    if not whole or not sizes:
        raise ValueError(f"model_config.{name} is {sizes!r}, expected at least one positive whole number")


def _layers(sizes: Sequence[int], activation_fn: str, *, layer_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers.append(_linear(before, after, gain=2**0.5))
        if layer_norm:
            layers.append(nn.LayerNorm(after))
        layers.append(ACTIVATIONS[activation_fn]())
    return layers
