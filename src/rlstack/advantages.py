"""What is made of a horizon's rewards: their scale, advantages, and the targets of the values."""

from typing import Any, final

import torch
from torch import Tensor

from . import ppo
from .buffer import Buffer, Sequences
from .hparams import Hparams
from .moments import RunningMoments


@final
class Advantages:
    """Estimates the advantages of one horizon after the other.

    Args:
        buffer: Where the horizon is.
        sequences: Where to put advantages and returns.
        hparams: Discounts, and what to normalize.
        device: Where to compute.
    """

    def __init__(self, buffer: Buffer, sequences: Sequences, hparams: Hparams, device: torch.device) -> None:
        self.hparams = hparams
        self.return_moments = RunningMoments(()).to(device)
        """Of the reversed discounted returns of all collects: their spread scales the rewards."""
        self._buffer, self._sequences = buffer, sequences
        self._discounted = torch.zeros(hparams.num_envs, device=device)

    def restart(self) -> None:
        """Let the discounted sums of rewards begin anew, after the environments have been reset."""
        self._discounted.zero_()

    def tensors(self) -> list[Tensor]:
        """Return all that `absorb` changes."""
        return [self._discounted, *self.return_moments.buffers()]

    def absorb(self) -> bool:
        """Take the horizon's rewards into the statistics that scale rewards; return True."""
        rewards = self._buffer.rewards.squeeze(-1).T
        sums = ppo.reversed_discounted_returns(rewards, self._discounted, gamma=self.hparams.gamma)
        self.return_moments.update(sums)
        self._discounted.copy_(sums[:, -1])
        return True

    def estimate(self) -> Tensor:
        """Put advantages and returns into the sequences; return how much of these the values explain, []."""
        hp, buffer = self.hparams, self._buffer
        rewards, values = buffer.rewards.squeeze(-1).T, buffer.values.squeeze(-1).T
        if hp.normalize_rewards:
            scale = self.return_moments.var.sqrt()
            rewards = rewards / torch.where(scale < 1e-6, 1.0, scale).to(rewards.dtype)
        advantages, returns = ppo.gae(rewards, values, gamma=hp.gamma, gae_lambda=hp.gae_lambda)
        explained_variance = ppo.explained_variance(values[:, :-1], returns)
        if hp.normalize_advantages:
            advantages = ppo.normalize(advantages)
        self._sequences.fill(advantages, returns)
        return explained_variance

    def state_dict(self) -> dict[str, Any]:
        """Return what the next horizon needs of those before it."""
        return {"discounted": self._discounted, "return_moments": dict(self.return_moments.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._discounted.copy_(state["discounted"])
        self.return_moments.load_state_dict(state["return_moments"])
