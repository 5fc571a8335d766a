"""Policies: a model and an action distribution, acting on observations."""

from typing import final

from tensordict import TensorDict
from torch import Tensor

from .. import specs
from ..common.types import Batch
from ..models import Model, RecurrentModel, lstm, mlp
from .memory import Breaks, run
from .stored import StoredPolicy


@final
class Policy(StoredPolicy):
    """A feedforward policy.

    Args:
        model: A `Model`.
        distribution_cls: Class of the action distribution; None takes the default for the action spec.
        normalize_observations: Whether to keep and apply running statistics of the observations.
        clip_actions: Whether a Normal on bounds is clipped and mapped onto them; policies of rlstack 0.1.0
            are not.
    """

    model_base = Model
    default_models = (mlp.DiscreteMLP, mlp.ContinuousMLP)

    @property
    def state_spec(self) -> None:
        """None: there is no state."""

    def initial_state(self, num_envs: int) -> None:
        """Return None: there is no state."""

    def _step(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, Tensor, None]:
        features, values = self.model(obs)
        return specs.upcast_half(features), specs.upcast_half(values), None

    def _features(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, None]:
        return specs.upcast_half(self.model.policy_features(obs)), None

    def _sequences(
        self, obs: Batch, state: TensorDict | None, breaks: Breaks | None
    ) -> tuple[TensorDict, Tensor]:
        return self._step(obs.flatten(0, 1), state)[:2]


@final
class RecurrentPolicy(StoredPolicy):
    """A recurrent policy; its arguments are those of `Policy`, with a `RecurrentModel`."""

    model_base = RecurrentModel
    default_models = (lstm.DiscreteLSTM, lstm.ContinuousLSTM)

    @property
    def state_spec(self) -> specs.Composite:
        """Recurrent state of one environment."""
        return self.model.state_spec

    def initial_state(self, num_envs: int) -> TensorDict:
        """Return zeros, [num_envs, ...]."""
        return specs.zeros(self.state_spec, (num_envs,), self.device)

    def _step(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, Tensor, TensorDict]:
        features, values, state = self.model(obs.unsqueeze(1), state)
        return (
            specs.upcast_half(features.squeeze(1)),
            specs.upcast_half(values.squeeze(1)),
            specs.upcast_half(state),
        )

    def _features(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, TensorDict]:
        features, state = self.model.policy_features(obs.unsqueeze(1), state)
        return specs.upcast_half(features.squeeze(1)), specs.upcast_half(state)

    def _sequences(
        self, obs: Batch, state: TensorDict | None, breaks: Breaks | None
    ) -> tuple[TensorDict, Tensor]:
        if breaks is None:
            features, values, _ = self.model(obs, state)
        else:
            features, values = run(self.model, obs, state, breaks)
        return specs.upcast_half(features.flatten(0, 1)), specs.upcast_half(values.flatten(0, 1))
