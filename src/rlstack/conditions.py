"""Conditions on the statistics of training, that say when to stop.

Statistics of evaluations, `eval/…`, aren't there after every update, nor are those of episodes where none
ended; NaN isn't there either. Meanwhile they count as not having changed.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

from .common.errors import StatisticError
from .common.metrics import ENV_TOTAL_STEPS, EPISODE_STATS
from .common.types import Stats
from .common.validation import did_you_mean, is_number


class Condition(ABC):
    """Something that is or isn't true after an update; may remember earlier ones."""

    @abstractmethod
    def __call__(self, stats: Stats) -> bool:
        """Take the statistics of one update; return whether the condition holds now."""

    def reset(self) -> None:  # noqa: B027 (most conditions remember nothing)
        """Forget everything; called when a run begins."""

    def share(self, stats: Stats) -> float | None:
        """Return how much of the way to it is over, from 0 to 1; None if that can't be told."""
        return None

    def __repr__(self) -> str:
        """Return how it is made."""
        said = ", ".join(f"{key}={value!r}" for key, value in vars(self).items() if not key.startswith("_"))
        return f"{type(self).__name__}({said})"


def statistic(stats: Stats, key: str) -> float | None:
    """Return a statistic, or None if it isn't there after this update.

    Raises:
        StatisticError: If there never is such a statistic.
    """
    if key in stats:
        return None if math.isnan(stats[key]) else stats[key]
    if key.startswith("eval/") or (key in EPISODE_STATS and EPISODE_STATS[0] in stats):
        return None
    raise StatisticError(f"{key} is not a statistic{did_you_mean(key, stats)}")


def _check(key: object, **numbers: object) -> None:
    """Refuse the name of a statistic that is no text, and what should be a number and isn't.

    Raises:
        TypeError: With its name.
    """
    if not isinstance(key, str):
        raise TypeError(f"key is {key!r}, expected the name of a statistic")
    for name, value in numbers.items():
        if not is_number(value) or value != value:
            raise TypeError(f"{name} is {value!r}, expected a number")


class _Group(Condition):
    """Conditions that are asked together; every one sees every update."""

    def __init__(self, *conditions: Condition | Sequence[Condition]) -> None:
        if len(conditions) == 1 and isinstance(conditions[0], Sequence):
            conditions = tuple(conditions[0])
        self.conditions: list[Condition] = []
        for condition in conditions:
            if not isinstance(condition, Condition):
                raise TypeError(f"{condition!r} is not a stop condition: derive it from Condition")
            self.conditions.append(condition)

    def reset(self) -> None:
        for condition in self.conditions:
            condition.reset()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.conditions))})"

    def _ask(self, stats: Stats) -> list[bool]:
        return [condition(stats) for condition in self.conditions]


@final
class And(_Group):
    """Holds when all of some conditions do.

    Args:
        conditions: Which, one by one or as one list.
    """

    def __call__(self, stats: Stats) -> bool:
        """Return whether all hold now."""
        return all(self._ask(stats))

    def share(self, stats: Stats) -> float | None:
        """Return that of the farthest one; None if it can't be told of one."""
        shares = [each.share(stats) for each in self.conditions]
        return None if None in shares else min(filter(None, shares), default=0.0)


@final
class Or(_Group):
    """Holds when any of some conditions does.

    Args:
        conditions: Which, one by one or as one list.
    """

    def __call__(self, stats: Stats) -> bool:
        """Return whether any holds now."""
        return any(self._ask(stats))

    def share(self, stats: Stats) -> float | None:
        """Return that of the nearest one; None if it can't be told of any."""
        shares = [share for each in self.conditions if (share := each.share(stats)) is not None]
        return max(shares, default=None)


def any_of(conditions: Sequence[Condition]) -> Or:
    """Return what holds when any of some conditions does.

    Raises:
        TypeError: If that is no list of conditions.
    """
    if not isinstance(conditions, Sequence):
        raise TypeError(f"stop_conditions is a {type(conditions).__name__}, expected a list of conditions")
    return Or(*conditions)


class _Bound(Condition):
    """Holds when a statistic is at a bound or beyond it."""

    def __init__(self, key: str, bound: float) -> None:
        _check(key, bound=bound)
        self.key, self.bound = key, bound

    def __call__(self, stats: Stats) -> bool:
        """Return whether the statistic is there, and at the bound or beyond it."""
        value = statistic(stats, self.key)
        return value is not None and self._is_hit(value)

    @abstractmethod
    def _is_hit(self, value: float) -> bool:
        """Return whether a value is at the bound or beyond it."""


@final
class HitsLowerBound(_Bound):
    """Holds when a statistic is at or below a bound.

    Args:
        key: The statistic, like `losses/vf`.
        bound: The bound.
    """

    def _is_hit(self, value: float) -> bool:
        return value <= self.bound


@final
class HitsUpperBound(_Bound):
    """Holds when a statistic is at or above a bound.

    Args:
        key: The statistic, like `returns/mean`.
        bound: The bound.
    """

    def share(self, stats: Stats) -> float | None:
        """Return how many of the updates, or of the environment steps, that it allows have been made."""
        is_count = self.key in ("algorithm/steps", ENV_TOTAL_STEPS) and self.bound > 0
        return min(stats[self.key] / self.bound, 1.0) if is_count else None

    def _is_hit(self, value: float) -> bool:
        return value >= self.bound


class _Streak(Condition):
    """Holds when a statistic has failed to improve so many times in a row."""

    def __init__(self, key: str, patience: int) -> None:
        _check(key, patience=patience)
        if not float(patience).is_integer():
            raise TypeError(f"patience is {patience!r}, expected a whole number")
        if patience < 1:
            raise ValueError(f"patience is {patience}, expected at least 1")
        self.key, self.patience = key, patience
        self.reset()

    def reset(self) -> None:
        self._best: float | None = None
        self._streak = 0

    def __call__(self, stats: Stats) -> bool:
        """Return whether the statistic has now failed to improve `patience` times in a row."""
        value = statistic(stats, self.key)
        if value is not None:
            if self._best is None or self._improves(value, self._best):
                self._best, self._streak = value, 0
            else:
                self._streak += 1
        return self._streak >= self.patience

    @abstractmethod
    def _improves(self, value: float, best: float) -> bool:
        """Return whether a value ends the streak and is what the next ones are compared with."""


@final
class Plateaus(_Streak):
    """Holds when a statistic has stayed within a relative tolerance of one value, several times in a row.

    Args:
        key: The statistic, like `returns/mean`.
        patience: How many times in a row.
        rtol: Share of that value by which the statistic may differ from it.
    """

    def __init__(self, key: str, *, patience: int = 5, rtol: float = 1e-3) -> None:
        super().__init__(key, patience)
        _check(key, rtol=rtol)
        self.rtol = rtol

    def _improves(self, value: float, best: float) -> bool:
        return not abs(value - best) <= self.rtol * abs(best)


@final
class StopsDecreasing(_Streak):
    """Holds when a statistic hasn't gone below its smallest value, several times in a row.

    Args:
        key: The statistic, like `losses/vf`.
        patience: How many times in a row.
    """

    def __init__(self, key: str, *, patience: int = 5) -> None:
        super().__init__(key, patience)

    def _improves(self, value: float, best: float) -> bool:
        return value < best


@final
class StopsIncreasing(_Streak):
    """Holds when a statistic hasn't gone above its largest value, several times in a row.

    Args:
        key: The statistic, like `returns/mean`.
        patience: How many times in a row.
    """

    def __init__(self, key: str, *, patience: int = 5) -> None:
        super().__init__(key, patience)

    def _improves(self, value: float, best: float) -> bool:
        return value > best


@final
class TimesOut(Condition):
    """Holds when so many seconds have passed since the run began.

    Args:
        seconds: How many.
    """

    def __init__(self, seconds: float) -> None:
        _check("", seconds=seconds)
        self.seconds = seconds
        self.reset()

    def reset(self) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def __call__(self, stats: Stats) -> bool:
        """Return whether the time is up."""
        return time.monotonic() - self._start >= self.seconds

    def share(self, stats: Stats) -> float | None:
        """Return how much of the time is over."""
        return min((time.monotonic() - self._start) / self.seconds, 1.0) if self.seconds > 0 else 1.0
