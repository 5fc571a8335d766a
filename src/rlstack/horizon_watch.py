"""Whether the values at the end of horizons have run away from those that are trained."""

import logging
from typing import final

from .data import BOOTSTRAP_GAP, VF_LOSS, Stats
from .hparams import Hparams

_log = logging.getLogger(__name__)

_LARGE_GAP = 1.0
_LARGE_LOSS = 1.0
"""Values may well rise over a horizon, to a gap of 1.7; but then they are learned, and their loss falls."""
_PATIENCE = 20
"""How many resets in a row are too many: an untrained value function has both for a while."""
_RESETS = 8
"""How many horizons to advise between resets."""


@final
class HorizonWatch:
    """Warns once when the last values before resets stay far from those before them, and can't be learned.

    What it counts is no part of a checkpoint: a resumed run counts anew.

    Args:
        hparams: How long a horizon is, and when to reset.
        max_horizon: The environment's most steps between resets; None doesn't bound them.
    """

    def __init__(self, hparams: Hparams, max_horizon: int | None) -> None:
        self._horizon, self._resets = hparams.horizon, hparams.horizons_per_env_reset
        self._max_horizon = max_horizon
        self._in_a_row, self._said = 0, False

    def look(self, stats: Stats, *, is_last: bool) -> None:
        """Take the statistics of an update, and whether the environments are reset after its horizon.

        If they aren't, the next horizon trains what this one bootstrapped from.
        """
        if not is_last or self._said:
            return
        large = abs(stats[BOOTSTRAP_GAP]) > _LARGE_GAP and stats[VF_LOSS] > _LARGE_LOSS
        self._in_a_row = self._in_a_row + 1 if large else 0
        if self._in_a_row >= _PATIENCE:
            self._said = True
            _log.warning(
                "%s is %.2g, beyond ±%g, and %s is %.2g, above %g, for %d resets in a row: simulations are "
                "reset after %d steps, so the values of what comes later are never trained, and run away; %s",
                BOOTSTRAP_GAP,
                stats[BOOTSTRAP_GAP],
                _LARGE_GAP,
                VF_LOSS,
                stats[VF_LOSS],
                _LARGE_LOSS,
                _PATIENCE,
                self._horizon * self._resets,
                self._advice(),
            )

    def _advice(self) -> str:
        resets = max(_RESETS, 4 * self._resets)
        if self._max_horizon is not None:
            resets = min(resets, self._max_horizon // self._horizon)
        if resets > self._resets:
            return f"set horizons_per_env_reset={resets}"
        return f"the environment's max_horizon is {self._max_horizon}, enlarge it"
