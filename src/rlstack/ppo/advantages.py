"""What is made of a horizon's rewards: their scale, advantages, and the targets of the values."""

from typing import Any, Generic, NamedTuple, TypeVar, final

import torch
from torch import Tensor

from ..distributed.ranks import ALONE, Ranks
from ..hparams import Hparams
from ..policies.normalization import RunningMeanStd
from . import estimates
from .rollout_buffer import RolloutBuffer, Sequences

SMALLEST_SCALE = 1e-6
"""Rewards whose discounted sums vary less than that are not scaled."""

_Number = TypeVar("_Number", Tensor, float)


class RewardMoments(NamedTuple, Generic[_Number]):
    """The statistics that scale rewards, as they would become, and as they are: of discounted sums."""

    mean: _Number
    var: _Number
    var_before: _Number
    """Variance without the horizon at hand."""
    count_before: _Number
    """How many there are without it."""


class ValueMonitors(NamedTuple):
    """What is to be monitored of the values of a horizon, each a scalar."""

    explained_variance: Tensor
    """How much of the returns they explain."""
    bootstrap_gap: Tensor
    """How far those at its end are from the others."""


@final
class AdvantageEstimator:
    """Estimates the advantages of one horizon after the other.

    Args:
        buffer: Where the horizon is.
        sequences: Where to put advantages and returns.
        hparams: Discounts, and what to normalize.
        device: Where to compute.
        ranks: Who has simulated a part of each horizon.
    """

    def __init__(
        self,
        buffer: RolloutBuffer,
        sequences: Sequences,
        hparams: Hparams,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.hparams, self._ranks = hparams, ranks
        self.return_moments = RunningMeanStd(()).to(device)
        """Of the reversed discounted returns of all collects: their spread scales the rewards."""
        self._buffer, self.sequences = buffer, sequences
        self._discounted = torch.zeros(hparams.num_envs, dtype=torch.float64, device=device)
        # What they are to become, once the horizon has been found sound.
        self.next_moments = RunningMeanStd(()).to(device)
        """With several ranks, those of this rank's horizon alone until `take_in`."""
        self._next_discounted = torch.zeros_like(self._discounted)

    def begin(self, *, anew: bool) -> None:
        """Let the next horizon's discounted sums of rewards go on from the last ones, or begin anew."""
        self._next_discounted.zero_() if anew else self._next_discounted.copy_(self._discounted)

    def tensors(self) -> list[Tensor]:
        """Return all that `sum_rewards` changes."""
        return [self._next_discounted, *self.next_moments.buffers()]

    def sum_rewards(self) -> RewardMoments[Tensor]:
        """Work out the statistics that scale rewards with the horizon in them; nothing uses them yet.

        With several ranks mean and variance are those of this rank's horizon alone.
        """
        rewards, before = self._buffer.rewards.squeeze(-1).T.to(torch.float64), self.return_moments
        ended, _, valid = self._endings()
        if valid is not None:
            rewards = rewards.where(valid, 0.0)
        sums = estimates.reversed_discounted_returns(
            rewards, self._next_discounted, gamma=self.hparams.gamma, ended=ended
        )
        self.next_moments.copy_from(RunningMeanStd(()).to(sums.device) if self._ranks.many else before)
        self.next_moments.update(sums, valid)
        last = sums[:, -1] if ended is None else sums[:, -1].masked_fill(ended[:, -1], 0.0)
        self._next_discounted.copy_(last)
        after = self.next_moments
        return RewardMoments(after.mean, after.var, before.var, before.count)

    def take_in(self, count: float, mean: float, var: float) -> RewardMoments[Tensor]:
        """Work out the same with the horizons of all ranks, given the moments of their sums."""
        before, after = self.return_moments, self.next_moments
        after.copy_from(before)
        after.merge(count, mean, var)
        return RewardMoments(after.mean, after.var, before.var, before.count)

    def accept(self) -> None:
        """Use the statistics that `sum_rewards` has worked out."""
        self.return_moments.copy_from(self.next_moments)
        self._discounted.copy_(self._next_discounted)

    def estimate(self) -> ValueMonitors:
        """Put advantages and returns into the sequences; return what is to be monitored of the values."""
        hp, buffer = self.hparams, self._buffer
        rewards, values = buffer.rewards.squeeze(-1).T, buffer.values.squeeze(-1).T
        if hp.normalize_rewards:
            scale = self.return_moments.var.sqrt()
            rewards = rewards / torch.where(scale < SMALLEST_SCALE, 1.0, scale).to(rewards.dtype)
        ended, end_values, valid = self._endings()
        advantages, returns = estimates.gae(
            rewards,
            values,
            gamma=hp.gamma,
            gae_lambda=hp.gae_lambda,
            ended=ended,
            end_values=end_values,
        )
        if self._ranks.many:
            found = self._of_all(advantages, values, returns, valid)
            advantages, explained_variance, bootstrap_gap = found
        else:
            explained_variance = estimates.explained_variance(values[:, :-1], returns, valid)
            bootstrap_gap = estimates.bootstrap_gap(values, returns, valid)
            if hp.normalize_advantages:
                advantages = estimates.normalize(advantages, valid)
        self.sequences.fill(advantages, returns)
        return ValueMonitors(explained_variance, bootstrap_gap)

    def _of_all(
        self, advantages: Tensor, values: Tensor, returns: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return advantages [B, T], explained variance and bootstrap gap, by the horizons of all ranks."""
        exact = returns.to(torch.float64)
        groups = (advantages, returns, exact - values[:, :-1], values[:, :-1])
        parts = [estimates.moments(group, valid) for group in groups]
        parts.append(estimates.moments(values[:, -1], None))
        every = self._ranks.gather("advantages", torch.stack([torch.stack(part) for part in parts]))
        whole = estimates.merged(estimates.Moments(*every.unbind(-1)))
        of_advantages, of_returns, of_errors, of_values, of_last = (
            estimates.Moments(*each) for each in zip(*whole, strict=True)
        )
        varies = of_returns.var > 0
        explained = torch.where(varies, 1 - of_errors.var / of_returns.var, 0.0)
        gap = torch.where(varies, (of_last.mean - of_values.mean) / of_returns.var.sqrt(), 0.0)
        if self.hparams.normalize_advantages:
            normalized = (advantages.to(torch.float64) - of_advantages.mean) / (
                of_advantages.var.sqrt() + 1e-8
            )
            normalized = normalized if valid is None else normalized.where(valid, 0.0)
            advantages = normalized.to(advantages.dtype)
        return advantages, explained.to(returns.dtype), gap.to(values.dtype)

    def _endings(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return with which steps something ends, what comes after them is worth, and which count: [B, T]."""
        endings = self._buffer.endings
        if endings is None:
            return None, None, None
        valid = None if endings.valid is None else endings.valid.squeeze(-1).T
        return endings.cut.squeeze(-1).T, endings.values.squeeze(-1).T, valid

    def state_dict(self) -> dict[str, Any]:
        """Return what the next horizon needs of those before it."""
        return {"discounted": self._discounted, "return_moments": dict(self.return_moments.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; `discounted` is None before a reset."""
        if state["discounted"] is None:
            self._discounted.zero_()
        else:
            self._discounted.copy_(state["discounted"])
        self.return_moments.load_state_dict(state["return_moments"])
