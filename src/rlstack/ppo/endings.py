"""Where episodes end within a horizon, and what would have come after those that were broken off."""

from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor

from .. import specs
from ..common.serialization import tensors_of
from ..common.types import Batch
from ..env.ending import FINAL_OBS, TRUNCATED, VALID, Ending
from ..policies.memory import with_zeros

_STEPS = 4
"""For how many steps of all environments there is room for final observations."""


@final
class Endings:
    """The endings of one horizon, time-major.

    V(final_obs) is worked out for many rows at once. On a CPU only the rows that were broken off are kept for
    that; elsewhere, where their number would have to be waited for, all rows of a few steps.

    Args:
        keys: What the environment says of endings.
        observation_spec: Of one environment.
        state_spec: Of one environment; None if the policy is feedforward.
        num_envs: B.
        horizon: T.
        device: Where to store.
        waits: Whether to read a number from the device means to wait for it.
    """

    cut: Tensor
    """[T, B, 1], bool. Whether what comes after a step has nothing to do with it."""
    values: Tensor
    """[T, B, 1]. What comes after a step with which an episode ends is worth; else 0."""
    valid: Tensor | None
    """[T, B, 1], bool. Whether a step was a real transition; None if all are."""

    def __init__(
        self,
        keys: tuple[str, ...],
        observation_spec: specs.TensorSpec,
        state_spec: specs.Composite | None,
        *,
        num_envs: int,
        horizon: int,
        device: torch.device,
        waits: bool,
    ) -> None:
        self._num_envs, self._waits = num_envs, waits
        self.cut = torch.zeros((horizon, num_envs, 1), dtype=torch.bool, device=device)
        self.episode_ended = torch.zeros_like(self.cut)
        """[T, B, 1], bool. Whether an episode ends with a step."""
        self.values = torch.zeros((horizon, num_envs, 1), device=device)
        self.valid = torch.ones_like(self.cut) if VALID in keys else None
        self._obs: Any = None
        self._state: TensorDict | None = None
        self._kept = 0
        if TRUNCATED in keys and FINAL_OBS in keys:
            rows = num_envs * min(horizon, _STEPS)
            self._obs = specs.zeros(observation_spec, (rows,), device)
            self._state = None if state_spec is None else specs.zeros(state_spec, (rows,), device)
            self._places = torch.zeros(rows, dtype=torch.int64, device=device)
            self._counts = torch.zeros((rows, 1), dtype=torch.bool, device=device)
            self._every = torch.arange(num_envs, device=device)

    def steps(self, ended: Tensor) -> list[int]:
        """Return after which steps something ends in some sequences; all, where that had to be waited for.

        Args:
            ended: [N, L], bool. Whether something ends with a step of a sequence.
        """
        if self._waits:
            return list(range(ended.shape[1]))
        found: list[int] = ended.any(0).nonzero().squeeze(-1).tolist()
        return found

    def tensors(self) -> list[Tensor]:
        """Return all that is stored."""
        found = tensors_of(self.cut, self.episode_ended, self.values, self.valid)
        if self._obs is not None:
            found += tensors_of(self._obs, self._state, self._places, self._counts)
        return found

    def begin(self) -> None:
        """Let a horizon begin."""
        self.values.zero_()
        self._kept = 0

    def take(
        self,
        t: int,
        ending: Ending,
        state: TensorDict | None,
        values: Callable[[], Tensor],
        evaluate: Callable[[Batch, TensorDict | None], Tensor],
    ) -> TensorDict | None:
        """Note what ends with step t; return the recurrent state before the next one.

        Args:
            t: The step.
            ending: What the environment says of it.
            state: [B, ...]. Recurrent state after the step; None if feedforward.
            values: Returns those of the observations before it, [B, 1].
            evaluate: Returns the values [N, 1] of observations [N, ...] and states [N, ...].
        """
        self.episode_ended[t] = ending.episode_ended
        self.cut[t] = ending.cut
        if self.valid is not None and ending.valid is not None:
            self.valid[t] = ending.valid
            if t > 0:
                # What goes on into such a row stops before it.
                stops = ~self.valid[t] & ~self.cut[t - 1]
                self.values[t - 1] = torch.where(stops, values(), self.values[t - 1])
                self.cut[t - 1] |= stops
        if ending.truncated is not None:
            truncated = ending.truncated
            if ending.terminated is not None:
                truncated = truncated & ~ending.terminated
            if self._obs is None:
                self.values[t] = torch.where(truncated, values(), 0.0)
            else:
                self._keep(t, truncated, ending.final_obs, state, evaluate)
        if state is None:
            return None
        if self._waits:
            return with_zeros(state, self.cut[t])
        # Few end: to look at all of a state by a mask takes longer.
        rows = self.cut[t].view(-1).nonzero().squeeze(-1)
        return state.apply(lambda part: part.index_fill(0, rows, 0))

    def _keep(
        self,
        t: int,
        truncated: Tensor,
        obs: Batch,
        state: TensorDict | None,
        evaluate: Callable[[Batch, TensorDict | None], Tensor],
    ) -> None:
        """Keep the final observations of step t until they are evaluated."""
        rows = self._every if self._waits else truncated.squeeze(-1).nonzero().squeeze(-1)
        if self._kept + len(rows) > len(self._places):
            self.evaluate(evaluate)
        start, stop = self._kept, self._kept + len(rows)
        # What isn't asked for may be NaN, which is nothing to compute with or to compare.
        self._obs[start:stop] = with_zeros(obs[rows], ~truncated[rows])
        if self._state is not None and state is not None:
            self._state[start:stop] = state[rows]
        self._places[start:stop] = t * self._num_envs + rows
        self._counts[start:stop] = truncated[rows]
        self._kept = stop

    def evaluate(self, evaluate: Callable[[Batch, TensorDict | None], Tensor]) -> None:
        """Work out what the final observations that are kept are worth.

        Args:
            evaluate: As of `take`.
        """
        flat = self.values.view(-1, 1)
        for block in self._blocks():
            state = None if self._state is None else self._state[block]
            values = evaluate(self._obs[block], state)
            part = slice(block.start, min(block.stop, self._kept))
            places, values = self._places[part], values[: part.stop - part.start].to(flat.dtype)
            flat[places] = torch.where(self._counts[part], values, flat[places])
        self._kept = 0

    def _blocks(self) -> Iterator[slice]:
        """Yield the rows that are kept, B at a time as in a step; the last ones of a block may be old."""
        for start in range(0, self._kept, self._num_envs):
            yield slice(start, start + self._num_envs)
