"""The optimizer steps of an algorithm by its kernels: many in one call."""

from typing import Any, final

from ...ppo.advantages import AdvantageEstimator
from ...ppo.collector import Collector
from ...ppo.executor import Executor
from ...ppo.learner import Learner
from ...ppo.rollout_buffer import Sequences
from .backend import KernelBackend
from .mlp import MLPKernel
from .steps import ManySteps

_MOST_NUMBERS = 2**24
"""Of encoded observations that are kept at once."""


@final
class KernelExecutor(Executor):
    """Makes many optimizer steps at once, where the steps are Adam's own, and small or machine code."""

    def __init__(self, collector: Collector, learner: Learner, advantages: AdvantageEstimator) -> None:
        super().__init__(collector, learner, advantages)
        self._programs: dict[Any, Any] = {}

    def optimize(self, sequences: Sequences, size: int) -> None:
        """Make the SGD iterations of an update, with minibatches of so many sequences."""
        hparams, done = self.learner.hparams, 0
        while done < hparams.num_sgd_iters:
            alone = not (self.learner.cancelled or self.learner.ranks.many)
            steps = self._many_steps(sequences, size) if alone else None
            if steps is not None:
                many = hparams.num_sgd_iters - done
                self.learner.take_made(steps.make(sequences, size, many))
                self.steps, done = steps.way, done + many
            else:
                self.steps = "one minibatch after the other, written out"
                self.sgd_iteration(sequences, size)
                done += 1

    def _many_steps(self, sequences: Sequences, size: int) -> "ManySteps | None":
        """Return what makes many steps at once, or None if they are others than it makes."""
        backend = self.learner.backend
        if not isinstance(backend, KernelBackend):
            return None
        kernel, output, gradients = backend.alone()
        if not isinstance(kernel, MLPKernel) or kernel.num_inputs * len(sequences) > _MOST_NUMBERS:
            return None
        steps = ManySteps(self.learner, backend, kernel, output, gradients, self._programs)
        if sequences.buffer.valid is not None or not steps.are_adams():
            return None
        return steps if steps.in_machine_code(size) or backend.is_small(size) else None
