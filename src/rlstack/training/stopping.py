"""Whether it is time to stop."""

import signal
from typing import final

from ..common.errors import StatisticError
from ..common.types import Stats
from ..conditions import Condition
from .interrupts import Interrupt
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
        self._settled: Stats | None = None
        """The statistics about which all ranks have said what is to be done."""

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

    def settle(self, condition: Condition, interrupt: Interrupt | None = None) -> bool:
        """Write what an update, or a signal, asks for; return whether a condition holds after it.

        Several ranks say so in one exchange. What a signal asks one of them for, all do; the condition is
        rank 0's, since a clock, or a test of the policy, may say something else on each.
        """
        keeper, ask = self._keeper, interrupt or Interrupt()
        if not keeper.ranks.many:
            self._save(ask)
            return self.holds(condition)
        holds = self.holds(condition)
        if self._settled is not keeper.last:
            self._settled = keeper.last
            signum = ask.signum or (signal.SIGTERM if ask.is_over else None)
            mine = {"save": keeper.is_due or ask.wants_checkpoint, "signum": signum, "holds": holds}
            every = [said.words for said in keeper.ranks.exchange("end of an update", mine)]
            ask.wants_checkpoint = any(said["save"] for said in every)
            ask.signum = next((said["signum"] for said in every if said["signum"]), None)
            self._answer = holds = every[0]["holds"]
        self._save(ask)
        return holds

    def after_step(self, condition: Condition) -> None:
        """Write with the other ranks what is due, where a caller's own loop makes the updates."""
        if self._keeper.ranks.many:
            self.settle(condition)

    def _save(self, interrupt: Interrupt) -> None:
        if interrupt.wants_checkpoint:
            interrupt.wants_checkpoint = False
            self._keeper.try_to_save()

    def _ask(self, condition: Condition, stats: Stats) -> bool:
        try:
            return condition(stats)
        except StatisticError:
            if not self._keeper.resumed:
                raise
            # A checkpoint knows nothing of what has been added since; the next update will tell.
            return False
