"""Whether it is time to stop."""

from typing import final

from ..common.errors import StatisticError
from ..common.types import Stats
from ..conditions import Condition
from .keeper import Keeper


@final
class Stopping:
    """Asks a condition about the last update, about each one once.

    Args:
        keeper: Has its statistics.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._asked: tuple[Condition, Stats] | None = None
        self._answer = False

    def begin(self, condition: Condition) -> None:
        """Let a condition forget everything."""
        self._asked = None
        condition.reset()

    def holds(self, condition: Condition) -> bool:
        """Return whether a condition holds after the last update; None does before the first one.

        Raises:
            StatisticError: If it needs a statistic that there isn't.
        """
        last = self._keeper.last
        if not last:
            return False
        if self._asked is None or self._asked[0] is not condition or self._asked[1] is not last:
            self._answer = self._ask(condition, last)
            self._asked = condition, last
        return self._answer

    def _ask(self, condition: Condition, stats: Stats) -> bool:
        try:
            return condition(stats)
        except StatisticError:
            if not self._keeper.resumed:
                raise
            # A checkpoint knows nothing of what has been added since; the next update will tell.
            return False
