"""Which parts of an algorithm are recorded and replayed."""

from collections.abc import Callable
from typing import final

from torch import Tensor

from .advantages import Advantages
from .buffer import Sequences
from .capture import Recording
from .collector import Collector
from .engine import Function, Horizons, Steps
from .holdings import CaptureError
from .learner import Learner
from .passes import Passes
from .watch import has_hooks


@final
class Recorded:
    """Makes horizons, sums of rewards, advantages and optimizer steps, replaying those that can be recorded.

    Args:
        collector: Its `simulate` is replaced.
        learner: Its `make_step` is replaced.
        advantages: What is made of rewards.
        sequences: Where advantages go.
        recorder: Makes a recording; None if nothing is to be recorded.
    """

    def __init__(
        self,
        collector: Collector,
        learner: Learner,
        advantages: Advantages,
        sequences: Sequences,
        recorder: Callable[[], Recording] | None,
    ) -> None:
        self.make_targets: Callable[[], Tensor] = advantages.estimate
        self.sum_rewards: Callable[[], Tensor] = advantages.sum_rewards
        self._learner = learner
        self.parts: list[Horizons | Steps | Function] = []
        if recorder is not None:
            collector.simulate = horizons = Horizons(collector, recorder)
            learner.make_step = steps = Steps(learner, recorder)
            self.make_targets = targets = Function(
                "Advantages are estimated", advantages.estimate, sequences.tensors, recorder
            )
            self.sum_rewards = sums = Function(
                "Rewards are summed", advantages.sum_rewards, advantages.tensors, recorder
            )
            self.parts = [horizons, steps, targets, sums]
        self.leave_hooks()

    @property
    def engine(self) -> str:
        """What `Algorithm.engine` says."""
        passes, replayed = (
            self._passes,
            [type(part) for part in self.parts if part.recordings.reason is None],
        )
        if len(replayed) == len(self.parts):
            return "graph" if replayed else passes.name
        if Horizons in replayed or Steps in replayed:
            return f"graph ({'horizons' if Horizons in replayed else 'optimizer steps'} only)"
        return passes.name

    def forget(self) -> None:
        """Drop all recordings, and record anew what can be."""
        for part in self.parts:
            part.recordings.forget()
        self.leave_hooks()

    def leave_hooks(self) -> None:
        """Run a model with hooks as it is: a recording would never call them."""
        if has_hooks(self._passes.policy):
            for part in self.parts:
                if isinstance(part, Horizons | Steps) and part.recordings.reason is None:
                    part.recordings.give_up(CaptureError("the model has hooks, which a graph would not call"))

    @property
    def _passes(self) -> Passes:
        return self._learner.passes
