"""A default policy's way forward in machine code, where there is any."""

from typing import Any, final

import torch
from torch import Tensor

from ...common.types import PolicyStep
from ...distributions import Normal, SquashedNormal
from ...policies.policy import Policy, RecurrentPolicy
from ..native.available import MachineCode, machine_code
from .heads import CategoricalOutput, NormalOutput, Output
from .mlp import MLPKernel


@final
class Forward:
    """Acts and values observations by machine code, for as many rows as it is the fastest for.

    Args:
        policy: Whose model it is.
        kernel: Of the model.
        output: Of the kernel's head.
        threads: How many may compute at the same time.
    """

    def __init__(
        self, policy: Policy | RecurrentPolicy, kernel: MLPKernel, output: Output, threads: int
    ) -> None:
        self._policy, self._kernel, self._output, self._threads = policy, kernel, output, threads
        self._size = sum(parameter.numel() for parameter in policy.parameters())
        self._actor: Any = None
        self._critic: Any = None
        self.prepare()

    def prepare(self) -> None:
        """Take in the parameters when they are needed next."""
        self._actor_is_ready = self._critic_is_ready = False

    def _found(self, rows: int) -> MachineCode | None:
        return None if self._kernel.dtype == torch.bfloat16 else machine_code(rows, self._size)

    def values_ready(self, rows: int) -> bool:
        """Return whether `values` may be asked for so many rows, and make it ready."""
        if (found := self._found(rows)) is None:
            return False
        if not self._critic_is_ready:
            weights, biases = self._kernel.layers()[1]
            relu = self._kernel.relu
            self._critic = self._critic or found.critic(weights, relu=relu, threads=self._threads)
            self._critic.load(weights, biases)
            self._critic_is_ready = True
        return True

    def values(self, thread: int, vectors: Tensor) -> Tensor:
        """Return the values [N, 1] of encoded observations [N, size], on one of the threads."""
        values: Tensor = self._critic.values(thread, vectors.to(self._kernel.dtype))
        return values

    def noise(self, rows: int) -> Tensor | None:
        """Return what `act` makes actions of, [N, k], the numbers that distributions draw, and make it ready.

        None if it can't act so, or another way is faster.
        """
        output, head = self._output, self._kernel.head
        choices = isinstance(output, CategoricalOutput)
        covered = choices or isinstance(output, NormalOutput)
        if not covered or self._policy.action_mask is not None or (found := self._found(rows)) is None:
            return None
        if not self._actor_is_ready:
            (weights, biases), relu = self._kernel.layers()[0], self._kernel.relu
            self._actor = self._actor or found.actor(weights, relu=relu, threads=self._threads)
            self._actor.load(weights, biases)
            if not choices:
                bounds, cls = self._policy.bounds, output.distribution_cls
                clip = cls is Normal and bounds is not None
                log_std = head.bounded_log_std().detach()
                self._actor.load_way(log_std, squash=cls is SquashedNormal, clip=clip, bounds=bounds)
            self._actor_is_ready = True
        noise = torch.empty((rows, head.linear.out_features), dtype=self._kernel.dtype)
        return noise.exponential_() if choices else noise.normal_()

    def act(self, thread: int, vectors: Tensor, noise: Tensor) -> PolicyStep:
        """Return actions without values for encoded observations [N, size], on one of the threads."""
        spec, vectors = self._policy.action_spec, vectors.to(self._kernel.dtype)
        if isinstance(self._output, CategoricalOutput):
            drawn, logp = self._actor.choose(thread, vectors, noise)
            return PolicyStep(drawn.to(spec.dtype), logp, None, None, drawn)
        drawn, logp, actions = self._actor.draw(thread, vectors, noise)
        if len(spec.shape) != 1:
            drawn, actions = (each.unflatten(1, spec.shape) for each in (drawn, actions))
        return PolicyStep(actions.to(spec.dtype), logp, None, None, drawn)
