"""The programs of an algorithm, recorded and replayed where they can be."""

from collections.abc import Callable
from typing import final

from torch import Tensor

from ..common.errors import CaptureError
from ..policies.watch import has_hooks
from ..ppo.advantages import AdvantageEstimator, RewardMoments, ValueMonitors
from ..ppo.collector import Collector
from ..ppo.executor import Executor
from ..ppo.learner import Learner
from ..ppo.rollout_buffer import Sequences
from .capture import Recording
from .graphed import GraphedFunction, GraphedRollout, GraphedStep


@final
class GraphExecutor(Executor):
    """Runs what an algorithm is made of by replaying it; what can't be recorded runs as it is.

    Args:
        collector: Simulates horizons.
        learner: Makes optimizer steps.
        advantages: What is made of rewards.
        recorder: Makes a recording.
    """

    def __init__(
        self,
        collector: Collector,
        learner: Learner,
        advantages: AdvantageEstimator,
        recorder: Callable[[], Recording],
    ) -> None:
        super().__init__(collector, learner, advantages)
        self._rollout, self._steps = GraphedRollout(collector, recorder), GraphedStep(learner, recorder)
        self._estimate = GraphedFunction(
            "Advantages are estimated", advantages.estimate, advantages.sequences.tensors, recorder
        )
        self._sums = GraphedFunction(
            "Rewards are summed", advantages.sum_rewards, advantages.tensors, recorder
        )
        self.parts: list[GraphedRollout | GraphedStep | GraphedFunction] = [
            self._rollout,
            self._steps,
            self._estimate,
            self._sums,
        ]
        if not learner.ranks.recordable:
            self._estimate.graphs.give_up(CaptureError("the ranks' connection is none that a graph can hold"))
        self._leave_hooks()

    @property
    def engine(self) -> str:
        """What `Algorithm.engine` says."""
        replayed = [part for part in self.parts if part.graphs.reason is None]
        if len(replayed) == len(self.parts):
            return "graph"
        for part, what in ((self._rollout, "horizons"), (self._steps, "optimizer steps")):
            if part in replayed:
                return f"graph ({what} only)"
        return super().engine

    def rollout(self, *, deterministic: bool) -> None:
        """Fill the collector's buffer."""
        self._rollout(deterministic=deterministic)

    def sum_rewards(self) -> RewardMoments[Tensor]:
        """Return what the statistics that scale rewards would become."""
        return self._sums()

    def estimate(self) -> ValueMonitors:
        """Put advantages and returns into the sequences."""
        return self._estimate()

    def optimizer_step(self, sequences: Sequences, index: slice | Tensor) -> Tensor:
        """Make one optimizer step and return its record."""
        return self._steps(sequences, index)

    def forget(self) -> None:
        """Drop all recordings, and record anew what can be."""
        for part in self.parts:
            part.graphs.forget()
        self._leave_hooks()

    def _leave_hooks(self) -> None:
        """Run a model with hooks as it is: a recording would never call them."""
        if has_hooks(self.learner.backend.policy):
            parts: tuple[GraphedRollout, GraphedStep] = (self._rollout, self._steps)
            for part in parts:
                if part.graphs.reason is None:
                    part.graphs.give_up(CaptureError("the model has hooks, which a graph would not call"))
