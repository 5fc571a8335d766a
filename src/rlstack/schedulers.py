"""Values that change over training, by environment steps.

A schedule is a list of `(env_steps, value)` with ascending, absolute `env_steps` (transitions of all
environments since the beginning). Before the first and after the last entry the value is constant.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias, final

Schedule: TypeAlias = Sequence[Sequence[float]]

Kind: TypeAlias = Literal["step", "interp"]


class Scheduler(ABC):
    """A value over environment steps.

    Args:
        schedule: `(env_steps, value)` pairs, ascending in `env_steps`.

    Raises:
        ValueError: If the schedule is empty, not made of pairs, or not ascending.
    """

    def __init__(self, schedule: Schedule, /) -> None:
        if not schedule or any(len(entry) != 2 for entry in schedule):
            raise ValueError(f"schedule is {schedule!r}, expected a list of (env_steps, value) pairs")
        self.env_steps = [float(entry[0]) for entry in schedule]
        self.values = [float(entry[1]) for entry in schedule]
        if any(after <= before for before, after in pairwise(self.env_steps)):
            raise ValueError(f"schedule has env_steps {self.env_steps}, expected them to ascend")

    @abstractmethod
    def __call__(self, env_steps: int) -> float:
        """Return the value at `env_steps` transitions."""


@final
class StepScheduler(Scheduler):
    """The value of the last entry whose `env_steps` have been reached.

    >>> StepScheduler([(0, 1.0), (100, 0.5)])(99)
    1.0
    """

    def __call__(self, env_steps: int) -> float:
        """Return the value at `env_steps` transitions."""
        return self.values[max(bisect_right(self.env_steps, env_steps) - 1, 0)]


@final
class InterpScheduler(Scheduler):
    """The value on the straight line between the entries around `env_steps`.

    >>> InterpScheduler([(0, 1.0), (100, 0.5)])(50)
    0.75
    """

    def __call__(self, env_steps: int) -> float:
        """Return the value at `env_steps` transitions."""
        after = bisect_right(self.env_steps, env_steps)
        if after == 0:
            return self.values[0]
        if after == len(self.values):
            return self.values[-1]
        start, end = self.env_steps[after - 1], self.env_steps[after]
        share = (env_steps - start) / (end - start)
        return self.values[after - 1] + share * (self.values[after] - self.values[after - 1])


def scheduler(value: float, schedule: Schedule | None, kind: Kind) -> Scheduler:
    """Return the scheduler of a hyperparameter: its schedule if it has one, else its constant value."""
    cls = InterpScheduler if kind == "interp" else StepScheduler
    return cls([(0, value)] if schedule is None else schedule)
