"""Models: how a policy turns observations into the features of its action distribution, and values."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from tensordict import TensorDict
from torch import Tensor, nn

from .. import specs


class _Network(nn.Module, ABC):
    """What feedforward and recurrent models share: they know their specs and their own options."""

    policy_keys: Sequence[str] | None = None
    """Keys of Composite observations that acting needs, nested ones as "a.b"; None is all.

    With them the policy acts on observations that have these alone, by `policy_features`.
    """
    action_mask_key: str | None = None
    """Name of a leaf of the observations, "a.b" if nested, that is True where a choice is allowed: the policy
    masks the feature `logits` by it. None allows all actions."""

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

    def policy_features(self, obs: Any) -> TensorDict:
        """Return the features that `forward` returns, reading nothing but what `policy_keys` name.

        To be defined with `policy_keys`; without them this is `forward`.

        Args:
            obs: [N, ...]. Observations, of which the other keys may be absent.

        Returns:
            Features [N, ...].
        """
        features, _ = self(obs)
        return features


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

    def policy_features(self, obs: Any, state: TensorDict) -> tuple[TensorDict, TensorDict]:
        """Return features and state that `forward` returns, reading nothing but what `policy_keys` name.

        To be defined with `policy_keys`; without them this is `forward`. What of the state only values need
        is returned as it was.

        Args:
            obs: [N, L, ...]. Sequences of observations, of which the other keys may be absent.
            state: [N, ...]. State before the first step of each.

        Returns:
            Features [N, L, ...] and state [N, ...].
        """
        features, _, state = self(obs, state)
        return features, state
