"""Models: how a policy turns observations into the features of its action distribution, and values."""

from abc import ABC, abstractmethod
from typing import Any

from tensordict import TensorDict
from torch import Tensor, nn

from .. import specs


class _Network(nn.Module, ABC):
    """What feedforward and recurrent models share: they know their specs and their own options."""

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
