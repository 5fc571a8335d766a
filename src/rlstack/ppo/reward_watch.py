"""Whether an environment's rewards are of a size that the statistics which scale them can bear."""

import logging
import math
from typing import final

import torch

from ..common.errors import NonFiniteError
from .advantages import SMALLEST_SCALE, RewardMoments
from .rollout_buffer import RolloutBuffer

_SPIKE = 1e6
"""How many times as large as others a reward is that gets named."""

_log = logging.getLogger(__name__)


@final
class RewardWatch:
    """Refuses rewards that make the statistics which scale them useless, and warns of the first spike.

    Args:
        buffer: Where the rewards are.
        source: Who they are from, for messages.
    """

    def __init__(self, buffer: RolloutBuffer, source: str) -> None:
        self._buffer, self._source = buffer, source
        self._named_spike = False

    def look(self, lowest: float, highest: float, moments: RewardMoments[float]) -> None:
        """Look at the rewards of a horizon, by what is known of them.

        Args:
            lowest: Smallest reward of the horizon.
            highest: Largest one.
            moments: The statistics that scale rewards.

        Raises:
            NonFiniteError: If mean or variance leave float32.
        """
        most = torch.finfo(torch.float32).max
        if not (abs(moments.mean) <= most and moments.var <= most):
            raise NonFiniteError(
                f"{self._largest()}: the statistics that scale rewards would leave float32; bound it there"
            )
        largest, scale = max(abs(lowest), abs(highest)), math.sqrt(moments.var_before)
        if self._named_spike or largest == 0:
            return
        if not moments.count_before or scale < SMALLEST_SCALE:
            rewards = self._buffer.rewards
            scale = float(rewards[rewards != 0].abs().median())
        if largest > _SPIKE * scale:
            self._named_spike = True
            _log.warning(
                "%s, where others are about %.3g: it will set the scale of rewards for long; bound it there "
                "(further ones are not named)",
                self._largest(),
                scale,
            )

    def _largest(self) -> str:
        """Return in words where the largest reward is, and how large."""
        rewards = self._buffer.rewards.squeeze(-1)
        step, index = divmod(int(rewards.abs().argmax()), self._buffer.num_envs)
        value = f"{rewards[step, index]:.3g}"
        return f"the reward of environment {index} from {self._source} is {value} {when(step)}"


def when(step: int) -> str:
    """Return in words when something was, -1 being the reset."""
    return "after the reset" if step < 0 else f"in step {step} of the horizon"
