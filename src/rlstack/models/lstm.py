"""Default models with a recurrent state."""

from collections.abc import Sequence
from typing import Any, ClassVar, final

from tensordict import TensorDict
from torch import Tensor, nn

from .. import specs
from ..common.types import Batch
from .base import RecurrentModel
from .encoder import make_encoders
from .heads import _ContinuousHead, _DiscreteHead, _linear, _unusual
from .mlp import _check_sizes, _without_mask


class _LSTM(RecurrentModel):
    """One long short-term memory with a linear layer for the features and one for the values.

    Where values are made from other keys than the policy sees, they have a memory of their own.
    """

    head_cls: ClassVar[type[nn.Module]]

    def __init__(
        self,
        observation_spec: specs.TensorSpec,
        action_spec: specs.TensorSpec,
        /,
        hidden_size: int = 256,
        num_layers: int = 1,
        *,
        policy_keys: Sequence[str] | None = None,
        value_keys: Sequence[str] | None = None,
        action_mask_key: str | None = None,
        **head: Any,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            hidden_size=hidden_size,
            num_layers=num_layers,
            **_unusual(
                policy_keys=policy_keys, value_keys=value_keys, action_mask_key=action_mask_key, **head
            ),
        )
        _check_sizes("hidden_size", [hidden_size])
        _check_sizes("num_layers", [num_layers])
        self.policy_keys, self.action_mask_key = policy_keys, action_mask_key
        self.encoder, self.value_encoder = make_encoders(_without_mask(self), policy_keys, value_keys)
        self.lstm = nn.LSTM(self.encoder.size, hidden_size, num_layers, batch_first=True)
        self.policy = self.head_cls(hidden_size, action_spec, **head)
        self.value = _linear(hidden_size, 1, gain=1.0)
        shape = (num_layers, hidden_size)
        dtype = self.value.weight.dtype
        parts = ["hidden", "cell"]
        if self.value_encoder is not None:
            self.value_lstm = nn.LSTM(self.value_encoder.size, hidden_size, num_layers, batch_first=True)
            parts += ["value_hidden", "value_cell"]
        self.state_spec = specs.Composite({part: specs.Unbounded(shape, dtype=dtype) for part in parts})

    def forward(self, obs: Batch, state: TensorDict) -> tuple[TensorDict, Tensor, TensorDict]:
        """Return features [N, L, ...], values [N, L, 1] and the next state [N, ...]."""
        outputs, after = _remember(self.lstm, self.encoder(obs), state)
        seen = outputs
        if self.value_encoder is not None:
            seen, more = _remember(self.value_lstm, self.value_encoder(obs), state, "value_")
            after |= more
        return self.policy(outputs), self.value(seen), TensorDict(after, batch_size=state.batch_size)

    def policy_features(self, obs: Batch, state: TensorDict) -> tuple[TensorDict, TensorDict]:
        """Return features [N, L, ...] and the next state; the memory of the values stays as it was.

        Observations may lack what the policy doesn't see.
        """
        outputs, after = _remember(self.lstm, self.encoder(obs), state)
        return self.policy(outputs), TensorDict({**state, **after}, batch_size=state.batch_size)


def _remember(
    lstm: nn.LSTM, vectors: Tensor, state: TensorDict, prefix: str = ""
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what a memory says, [N, L, size], and its part of the next state, [N, num_layers, size] each."""
    names = f"{prefix}hidden", f"{prefix}cell"
    # torch's LSTM wants its states layer by layer, [num_layers, N, hidden_size].
    before = tuple(state[name].transpose(0, 1).contiguous() for name in names)
    outputs, after = lstm(vectors, before)
    return outputs, {name: part.transpose(0, 1) for name, part in zip(names, after, strict=True)}


@final
class DiscreteLSTM(_LSTM):
    """The default recurrent model for Categorical, MultiCategorical, OneHot and Binary actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hidden_size: Size of the memory.
        num_layers: How many memories stand on top of each other.
        policy_keys: Keys of Composite observations that the policy sees, nested ones as "a.b"; None is all.
        value_keys: Keys that the values are made from; None is all.
            If they aren't the same keys, values have a memory of their own.
        action_mask_key: As of `DiscreteMLP`.
    """

    head_cls = _DiscreteHead

    def __init__(
        self,
        observation_spec: specs.TensorSpec,
        action_spec: specs.TensorSpec,
        /,
        hidden_size: int = 256,
        num_layers: int = 1,
        *,
        policy_keys: Sequence[str] | None = None,
        value_keys: Sequence[str] | None = None,
        action_mask_key: str | None = None,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            hidden_size=hidden_size,
            num_layers=num_layers,
            policy_keys=policy_keys,
            value_keys=value_keys,
            action_mask_key=action_mask_key,
        )


@final
class ContinuousLSTM(_LSTM):
    """The default recurrent model for floating Unbounded and Bounded actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hidden_size: Size of the memory.
        num_layers: How many memories stand on top of each other.
        policy_keys: Keys of Composite observations that the policy sees, nested ones as "a.b"; None is all.
        value_keys: Keys that the values are made from; None is all.
            If they aren't the same keys, values have a memory of their own.
        log_std_init: As of `ContinuousMLP`.
        min_log_std: As of `ContinuousMLP`.
        max_log_std: As of `ContinuousMLP`.
    """

    head_cls = _ContinuousHead

    def __init__(
        self,
        observation_spec: specs.TensorSpec,
        action_spec: specs.TensorSpec,
        /,
        hidden_size: int = 256,
        num_layers: int = 1,
        *,
        policy_keys: Sequence[str] | None = None,
        value_keys: Sequence[str] | None = None,
        log_std_init: float = 0.0,
        min_log_std: float | None = None,
        max_log_std: float | None = None,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            hidden_size=hidden_size,
            num_layers=num_layers,
            policy_keys=policy_keys,
            value_keys=value_keys,
            log_std_init=log_std_init,
            min_log_std=min_log_std,
            max_log_std=max_log_std,
        )
