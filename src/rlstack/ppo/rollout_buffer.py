"""Storage of one horizon, allocated once and read in sequences."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from .. import specs
from ..common.serialization import tensors_of
from ..common.types import OBS, REWARDS, Batch
from ..models.masks import ActionMask
from ..policies.memory import Breaks
from .endings import Endings


class RolloutBuffer:
    """Everything of one horizon, time-major: writes and flattening are contiguous.

    Args:
        observation_spec: Of one environment.
        drawn: [N, *A]. Something that the distribution drew, of the form that is to be stored.
        state_spec: Of one environment; None if the policy is feedforward.
        num_envs: B.
        horizon: T.
        seq_len: L, steps between two stored recurrent states; divides the horizon.
        device: Where to store.
        action_mask: Which actions observations allow; None where all are.
    """

    obs: Any
    """[T + 1, B, ...]. The last one follows the last action."""
    drawn: Any
    """[T, B, *A]. What the distribution drew, in the dtype in which it was drawn."""
    logp: Tensor
    """[T, B, 1]. Log-probability of that at the time."""
    values: Tensor
    """[T + 1, B, 1]. The last one bootstraps."""
    rewards: Tensor
    """[T, B, 1]. As the environment returned them."""
    states: TensorDict | None
    """[T / L, B, ...]. Recurrent states at the starts of sequences."""
    endings: Endings | None = None
    """Where episodes end; None if the environment says nothing of that."""

    def __init__(
        self,
        observation_spec: specs.TensorSpec,
        drawn: Batch,
        state_spec: specs.Composite | None,
        *,
        num_envs: int,
        horizon: int,
        seq_len: int,
        device: torch.device,
        action_mask: ActionMask | None = None,
    ) -> None:
        self.num_envs, self.horizon, self.seq_len = num_envs, horizon, seq_len
        self.action_mask = action_mask
        self._specs = observation_spec, state_spec
        self.obs = specs.zeros(observation_spec, (horizon + 1, num_envs), device)
        self.drawn = specs.zeros(drawn[0], (horizon, num_envs), device)
        self.logp = torch.zeros((horizon, num_envs, 1), device=device)
        self.values = torch.zeros((horizon + 1, num_envs, 1), device=device)
        self.rewards = torch.zeros((horizon, num_envs, 1), device=device)
        self._discrete = [
            (".".join((OBS, *path)), part, leaf)
            for path, part, leaf in specs.parts(self.obs, observation_spec)
            if specs.num_values(leaf) is not None
            and (leaf.dtype != torch.bool or specs.kind(leaf) is specs.OneHot)
        ]
        """Name, storage and spec of the discrete observations."""
        self.states = None
        if state_spec is not None:
            self.states = specs.zeros(state_spec, (horizon // seq_len, num_envs), device)
        self._allow_all()

    def tensors(self) -> list[Tensor]:
        """Return all that is stored."""
        found = tensors_of(self.obs, self.drawn, self.logp, self.values, self.rewards, self.states)
        return found if self.endings is None else [*found, *self.endings.tensors()]

    @property
    def valid(self) -> Tensor | None:
        """[T, B, 1], bool. Which steps were real transitions; None if all were."""
        return None if self.endings is None else self.endings.valid

    def add_endings(self, keys: tuple[str, ...], *, waits: bool) -> None:
        """Make room for endings.

        Args:
            keys: What the environment says of them.
            waits: Whether to read a number from the device means to wait for it.
        """
        sizes = {"num_envs": self.num_envs, "horizon": self.horizon}
        self.endings = Endings(keys, *self._specs, **sizes, device=self.logp.device, waits=waits)

    def clear(self) -> None:
        """Set everything to zero."""
        for tensor in self.tensors():
            tensor.zero_()
        self._allow_all()

    def _allow_all(self) -> None:
        """Let observations allow all actions: steps that were never taken aren't at fault."""
        if self.action_mask is not None:
            self.obs[self.action_mask.path].fill_(1)

    def go_on(self) -> None:
        """Begin a horizon where the last one ended."""
        self.obs[0] = self.obs[-1]

    @property
    def num_sequences(self) -> int:
        """How many sequences of `seq_len` steps a horizon holds."""
        return self.num_envs * self.horizon // self.seq_len

    def is_sound(self) -> Tensor:
        """Return whether every real number is finite and every discrete observation in range, bool []."""
        finite = [part.isfinite().all() for _, part in self._real_parts()]
        within = [~specs.outside(part, spec).any() for _, part, spec in self._discrete]
        able = [] if self.action_mask is None else [~self.stuck(self.action_mask).any()]
        return torch.stack([*finite, *within, *able]).all()

    def stuck(self, mask: ActionMask) -> Tensor:
        """Return where a step that counts had no action to take, bool [T, B]."""
        stuck = mask.is_stuck(self.obs[:-1])
        return stuck if self.valid is None else stuck & self.valid.squeeze(-1)

    def first_out_of_range(self) -> tuple[str, int, int] | None:
        """Return name, step and environment of the first observation that is no value of its spec, if any."""
        found = []
        for name, part, spec in self._discrete:
            bad = specs.outside(part, spec).flatten(2).any(-1).nonzero()
            found += [(name, *bad[0].tolist())] if len(bad) else []
        name, step, env = min(found, key=lambda fault: fault[1], default=(None, 0, 0))
        return None if name is None else (name, step - 1, env)

    def first_nonfinite(self) -> tuple[str, int, int] | None:
        """Return name, step and environment of the first number that isn't finite, if there is one.

        An observation counts to the step that returned it; -1 is the reset.
        """
        found: list[tuple[float, str, int, int]] = []
        for name, part in self._real_parts():
            bad = (~part.isfinite()).flatten(2).any(-1).nonzero()
            if len(bad):
                step, env = bad[0].tolist()
                from_env = name.split(".")[0] in (OBS, REWARDS)
                step -= name.split(".")[0] == OBS
                # The policy speaks before the environment takes the step.
                found.append((step if from_env else step - 0.5, name, step, env))
        return min(found, key=lambda fault: fault[0])[1:] if found else None

    def _real_parts(self) -> Iterator[tuple[str, Tensor]]:
        parts = [(OBS, self.obs), (REWARDS, self.rewards), ("actions", self.drawn)]
        parts += [("logp", self.logp), ("values", self.values)]
        if self.endings is not None:
            parts.append(("the value of final_obs", self.endings.values))
        for name, value in parts:
            yield from (leaf for leaf in specs.named(value, name) if leaf[1].is_floating_point())


class LossInputs(NamedTuple):
    """What the loss reads of each row beside the policy, [N · L, 1]."""

    old_logp: Tensor
    """Log-probability of the action when it was taken."""
    old_values: Tensor
    """Value of the observation at that time."""
    advantages: Tensor
    returns: Tensor
    """Target of the value function."""
    weights: Tensor | None = None
    """How much a row counts, 1 on average over the minibatch; None if all count the same."""


_COLUMNS = len(LossInputs._fields) - 1
"""What the loss reads of every row; weights are made of what the buffer has."""


class Sequences:
    """A buffer, cut into sequences of `seq_len` steps.

    Args:
        buffer: Where the horizon is.
    """

    def __init__(self, buffer: RolloutBuffer) -> None:
        self.buffer = buffer
        self._num_envs, self._seq_len = buffer.num_envs, buffer.seq_len
        self._num_sequences = buffer.num_sequences
        self._obs = buffer.obs[:-1].flatten(0, 1)
        self._drawn = buffer.drawn.flatten(0, 1)
        self._states = None if buffer.states is None else buffer.states.flatten(0, 1)
        # One matrix: a minibatch gathers all four with one indexing operation.
        rows = buffer.horizon * buffer.num_envs
        self._columns = torch.zeros((_COLUMNS, rows), device=buffer.logp.device)

    def fill(self, advantages: Tensor, returns: Tensor) -> None:
        """Take in what has been made of the horizon: advantages [B, T] and returns [B, T]."""
        buffer = self.buffer
        loss_inputs = (buffer.logp, buffer.values[:-1], advantages.T.unsqueeze(-1), returns.T.unsqueeze(-1))
        for column, values in zip(self._columns, loss_inputs, strict=True):
            column.copy_(values.flatten())

    def tensors(self) -> list[Tensor]:
        """Return the tensors that minibatches are taken from."""
        return [*self.buffer.tensors(), self._columns]

    def __len__(self) -> int:
        return self._num_sequences

    def observations(self, index: slice | Tensor) -> tuple[Any, TensorDict | None]:
        """Return observations [N, L, ...] and the recurrent states before them [N, ...], None if feedforward.

        Args:
            index: Numbers of sequences; q starts in step q // B · L of environment q % B.
        """
        obs = _at(self._obs, self._rows(index))
        obs = obs.unsqueeze(1) if self._seq_len == 1 else obs.unflatten(0, (count(index), self._seq_len))
        return obs, None if self._states is None else _at(self._states, index)

    def breaks(self, index: slice | Tensor) -> Breaks | None:
        """Return where the recurrent state begins anew within sequences; None if it doesn't."""
        endings = self.buffer.endings
        if endings is None or self._seq_len == 1:
            return None
        ended = _at(endings.cut.view(-1), self._rows(index)).view(-1, self._seq_len)[:, :-1]
        steps = endings.steps(ended)
        return Breaks(ended, steps) if steps else None

    def drawn(self, index: slice | Tensor) -> Any:
        """Return what was drawn, [N · L, *A]."""
        return _at(self._drawn, self._rows(index))

    def loss_inputs(self, index: slice | Tensor, whole: slice | Tensor | None = None) -> LossInputs:
        """Return what the loss reads beside the policy.

        Args:
            index: Numbers of sequences.
            whole: Those of the minibatch that they are of; None if they are all of it.
        """
        rows = self._rows(index)
        found = self._columns[:, rows] if isinstance(rows, slice) else self._columns.index_select(1, rows)
        weights = self._weights(rows, index if whole is None else whole)
        return LossInputs(*found.unsqueeze(-1))._replace(weights=weights)

    def counting(self, index: slice | Tensor) -> Tensor | None:
        """Return which share of the steps of some sequences counts, []; None if all do."""
        if self.buffer.valid is None:
            return None
        return _at(self.buffer.valid.view(-1), self._rows(index)).to(self._columns.dtype).mean()

    def _weights(self, rows: slice | Tensor, whole: slice | Tensor) -> Tensor | None:
        """Return the weights of rows [N · L, 1] of a minibatch."""
        if (share := self.counting(whole)) is None or (valid := self.buffer.valid) is None:
            return None
        return _at(valid.view(-1, 1), rows).to(share.dtype) / share.clamp_min(torch.finfo(share.dtype).tiny)

    def _rows(self, index: slice | Tensor) -> slice | Tensor:
        """Return where the steps of sequences are in the flattened buffer, [N · L]."""
        if self._seq_len == 1:
            return index
        device = self._columns.device
        if isinstance(index, slice):
            index = torch.arange(index.start, index.stop, device=device)
        first = index // self._num_envs * (self._num_envs * self._seq_len) + index % self._num_envs
        rows = first.unsqueeze(-1) + self._num_envs * torch.arange(self._seq_len, device=device)
        return rows.flatten()


def _at(rows: Any, index: slice | Tensor) -> Any:
    """Return the rows with these numbers."""
    if isinstance(rows, Tensor) and isinstance(index, Tensor):
        return rows.index_select(0, index)
    return rows[index]


def minibatches(total: int, size: int, *, shuffle: bool, device: torch.device) -> Iterator[slice | Tensor]:
    """Yield the numbers 0 … total − 1 in parts of `size`; the whole as one part keeps its order."""
    if shuffle and size < total:
        yield from torch.randperm(total, device=device).split(size)
    else:
        yield from microbatches(slice(0, total), size)


def count(index: slice | Tensor) -> int:
    """Return how many entries an index has."""
    return index.stop - index.start if isinstance(index, slice) else len(index)


def microbatches(index: slice | Tensor, size: int) -> Iterator[slice | Tensor]:
    """Yield consecutive parts of `index` of at most `size` entries."""
    if isinstance(index, slice):
        for start in range(index.start, index.stop, size):
            yield slice(start, min(start + size, index.stop))
    else:
        yield from index.split(size)
