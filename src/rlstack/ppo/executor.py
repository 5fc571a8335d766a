"""How the programs of an algorithm are run: operation by operation. `rlstack.engine` knows a faster way."""

from torch import Tensor

from .advantages import AdvantageEstimator, RewardMoments, ValueMonitors
from .collector import Collector
from .learner import Learner
from .rollout_buffer import Sequences, minibatches


class Executor:
    """Runs what an algorithm is made of, operation by operation: the reference.

    Args:
        collector: Simulates horizons.
        learner: Makes optimizer steps.
        advantages: What is made of rewards.
    """

    def __init__(self, collector: Collector, learner: Learner, advantages: AdvantageEstimator) -> None:
        self.collector, self.learner, self.advantages = collector, learner, advantages
        self.steps = "none so far"
        """How the optimizer steps of the last update were made."""

    @property
    def engine(self) -> str:
        """What `Algorithm.engine` says."""
        return self.learner.backend.name

    def rollout(self, *, deterministic: bool) -> None:
        """Fill the collector's buffer, as `Collector.rollout`."""
        self.collector.rollout(deterministic=deterministic)

    def sum_rewards(self) -> RewardMoments[Tensor]:
        """Return what the statistics that scale rewards would become, as `AdvantageEstimator.sum_rewards`."""
        return self.advantages.sum_rewards()

    def estimate(self) -> ValueMonitors:
        """Put advantages and returns into the sequences, as `AdvantageEstimator.estimate`."""
        return self.advantages.estimate()

    def optimize(self, sequences: Sequences, size: int) -> None:
        """Make the SGD iterations of an update, with minibatches of so many sequences."""
        self.steps = "one minibatch after the other"
        for _ in range(self.learner.hparams.num_sgd_iters):
            self.sgd_iteration(sequences, size)

    def sgd_iteration(self, sequences: Sequences, size: int) -> None:
        """Make an optimizer step from each minibatch of so many sequences, until one isn't made."""
        hparams, learner = self.learner.hparams, self.learner
        shuffle, device = hparams.shuffle_minibatches, learner.backend.device
        for index in minibatches(len(sequences), size, shuffle=shuffle, device=device):
            if not learner.cancelled:
                learner.take(self.optimizer_step(sequences, index))

    def optimizer_step(self, sequences: Sequences, index: slice | Tensor) -> Tensor:
        """Make one optimizer step and return its record, as `Learner.step`."""
        return self.learner.step(sequences, index)

    def forget(self) -> None:
        """Take note that the policy is computed in another way from now on."""
