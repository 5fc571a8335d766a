"""Default models with a recurrent state."""

from typing import Any, ClassVar, final

from tensordict import TensorDict
from torch import Tensor, nn

from .. import specs
from ..common.types import Batch
from .base import RecurrentModel
from .encoder import ObservationEncoder
from .heads import _ContinuousHead, _DiscreteHead, _linear, _unusual
from .mlp import _check_sizes, _without_mask


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
        *,
        action_mask_key: str | None = None,
        **head: Any,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            hidden_size=hidden_size,
            num_layers=num_layers,
            **_unusual(action_mask_key=action_mask_key, **head),
        )
        _check_sizes("hidden_size", [hidden_size])
        _check_sizes("num_layers", [num_layers])
        self.action_mask_key = action_mask_key
        self.encoder = ObservationEncoder(_without_mask(self))
        self.lstm = nn.LSTM(self.encoder.size, hidden_size, num_layers, batch_first=True)
        self.policy = self.head_cls(hidden_size, action_spec, **head)
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
    """The default recurrent model for Categorical, MultiCategorical, OneHot and Binary actions.

    Args:
        observation_spec: Of one environment.
        action_spec: Of one environment.
        hidden_size: Size of the memory.
        num_layers: How many memories stand on top of each other.
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
        action_mask_key: str | None = None,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            hidden_size=hidden_size,
            num_layers=num_layers,
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
        log_std_init: float = 0.0,
        min_log_std: float | None = None,
        max_log_std: float | None = None,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            hidden_size=hidden_size,
            num_layers=num_layers,
            log_std_init=log_std_init,
            min_log_std=min_log_std,
            max_log_std=max_log_std,
        )
