"""Returns and lengths of the episodes that end within horizons."""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from ..common.metrics import EPISODES, summarize
from .estimates import reversed_discounted_returns


@final
class Episodes:
    """What the episodes at hand have summed up to, from one horizon to the next.

    Args:
        num_envs: B.
        device: Where to compute.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.begun = False
        """Whether the environment has ever said anything of endings."""
        self._returns, self._lengths = torch.zeros((2, num_envs), dtype=torch.float64, device=device)

    def begin(self) -> None:
        """Let all episodes begin anew."""
        self._returns.zero_()
        self._lengths.zero_()

    def take(
        self, rewards: Tensor, episode_ended: Tensor, cut: Tensor, valid: Tensor | None
    ) -> dict[str, Tensor]:
        """Take in some steps; return `episodes/…` of those that ended in them, each a scalar.

        All but `episodes/count` mean nothing where that is 0.

        Args:
            rewards: [T, B, 1]. Of each step.
            episode_ended: [T, B, 1], bool. Whether an episode ends with it.
            cut: [T, B, 1], bool. Whether what comes after it has nothing to do with it.
            valid: [T, B, 1], bool. Whether it was a real transition; None if all were.
        """
        self.begun = True
        rewards = rewards.to(torch.float64)
        counts = torch.ones_like(rewards)
        if valid is not None:
            rewards, counts = rewards.where(valid, 0.0), counts.where(valid, 0.0)
        rewards, counts, ended, cut = (part.squeeze(-1).T for part in (rewards, counts, episode_ended, cut))
        returns, lengths = (
            reversed_discounted_returns(summed, before, gamma=1.0, ended=cut)
            for summed, before in ((rewards, self._returns), (counts, self._lengths))
        )
        for before, sums in ((self._returns, returns), (self._lengths, lengths)):
            before.copy_(sums[:, -1].masked_fill(cut[:, -1], 0.0))
        found = summarize(f"{EPISODES}/returns", returns, ended)
        mean_length = summarize("", lengths, ended)["/mean"]
        count = ended.sum().to(torch.float64)
        return {f"{EPISODES}/count": count, **found, f"{EPISODES}/lengths/mean": mean_length}

    def state_dict(self) -> dict[str, Any]:
        """Return what the next horizon needs of those before it."""
        return {"returns": self._returns, "lengths": self._lengths}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.begun = True
        self._returns.copy_(state["returns"])
        self._lengths.copy_(state["lengths"])


def without_none(stats: dict[str, float]) -> dict[str, float]:
    """Return statistics without those of episodes, but their count, where none has ended."""
    if stats.get(f"{EPISODES}/count") != 0:
        return stats
    return {
        name: value
        for name, value in stats.items()
        if not name.startswith(f"{EPISODES}/") or name == f"{EPISODES}/count"
    }
