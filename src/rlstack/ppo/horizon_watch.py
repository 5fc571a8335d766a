"""Whether the values at the end of horizons have run away from those that are trained."""

import logging
import math
from typing import final

from ..common.metrics import BOOTSTRAP_GAP
from ..hparams import Hparams

_log = logging.getLogger(__name__)

_MARGIN = 1.05
"""How many times the gap of a steady rise is too much; what learns well has stayed below 0.75 times it."""

_PATIENCE = 20
"""How many resets in a row are too many: an untrained value function has a large gap for a while."""

RESETS = 8
"""How many horizons to advise between resets."""


@final
class HorizonWatch:
    """Warns once when the last values before resets stay further ahead than by a steady rise.

    Of values that rise by the same amount in every step and are the same in all environments, the gap is
    √(3 (T + 1) / (T − 1)); where the returns of environments differ too, it is less.

    What it counts is no part of a checkpoint: a resumed run counts anew.

    Args:
        hparams: How long a horizon is, and when to reset.
        max_horizon: The environment's most steps between resets; None doesn't bound them.
    """

    def __init__(self, hparams: Hparams, max_horizon: int | None) -> None:
        self._horizon, self._resets = hparams.horizon, hparams.horizons_per_env_reset
        self._max_horizon = max_horizon
        steps = hparams.horizon
        self._bound = _MARGIN * math.sqrt(3 * (steps + 1) / (steps - 1)) if steps > 1 else math.inf
        self._in_a_row, self._said = 0, False

    def look(self, gap: float, *, is_last: bool) -> None:
        """Take the `monitors/bootstrap_gap` of a horizon, and whether the environments are reset after it.

        If they aren't, the next horizon trains what this one bootstrapped from.
        """
        if not is_last or self._said:
            return
        self._in_a_row = self._in_a_row + 1 if abs(gap) > self._bound else 0
        if self._in_a_row >= _PATIENCE:
            self._said = True
            _log.warning(
                "%s is %.2f, beyond ±%.2f for %d resets in a row: simulations are reset after %d steps, so "
                "the values of what comes later are never trained, and seem to run away; %s",
                BOOTSTRAP_GAP,
                gap,
                self._bound,
                _PATIENCE,
                self._horizon * self._resets,
                self._advice(),
            )

    def _advice(self) -> str:
        resets = max(RESETS, 4 * self._resets)
        if self._max_horizon is not None:
            resets = min(resets, self._max_horizon // self._horizon)
        if resets > self._resets:
            return f"set horizons_per_env_reset={resets}"
        return f"the environment's max_horizon is {self._max_horizon}, enlarge it"
