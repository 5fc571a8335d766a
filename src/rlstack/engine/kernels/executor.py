"""The optimizer steps of an algorithm by its kernels: many small ones in one call."""

import math
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam, AdamW
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from ...common.device import one_thread
from ...distributions import SquashedNormal
from ...ppo.executor import Executor
from ...ppo.learner import Learner
from ...ppo.rollout_buffer import Sequences
from ...ppo.step_record import StepRecord
from .backend import KernelBackend
from .base import script, unoptimized
from .heads import CategoricalOutput, NormalOutput, Output
from .iteration import (
    AdamSteps,
    Group,
    Loss,
    Rows,
    SmallNet,
    Std,
    conclude,
    iterate,
    rate_policy,
    rate_values,
)
from .loss_gradients import error_bounds, surrogate_bounds
from .mlp import MLPKernel

_MOST_NUMBERS = 2**22
"""Of encoded observations that are kept at once."""

_ALONE = 2**23
"""Rows of a minibatch times parameters: up to so many, one thread is faster than two."""


@final
class KernelExecutor(Executor):
    """Makes all optimizer steps of an SGD iteration at once, where minibatches are small and Adam's own."""

    def sgd_iteration(self, sequences: Sequences, size: int) -> None:
        """Make an optimizer step from each minibatch of so many sequences, until one isn't made."""
        learner, backend = self.learner, self.learner.backend
        alone = not (learner.cancelled or learner.ranks.many)
        if alone and isinstance(backend, KernelBackend) and backend.is_small(size):
            kernel, output, gradients = backend.alone()
            if isinstance(kernel, MLPKernel) and kernel.num_inputs * len(sequences) <= _MOST_NUMBERS:
                steps = _SmallSteps(learner, backend, kernel, output, gradients)
                if sequences.buffer.valid is None and steps.are_adams():
                    learner.take_made(steps.make(sequences, size))
                    return
        super().sgd_iteration(sequences, size)


class _SmallSteps:
    """Optimizer steps of one SGD iteration.

    Args:
        learner: Makes them.
        backend: Whose model it is.
        kernel: Of the calling thread.
        output: Of the kernel's head.
        gradients: By parameter, parts of one flat tensor.
    """

    def __init__(
        self,
        learner: Learner,
        backend: KernelBackend,
        kernel: MLPKernel,
        output: Output,
        gradients: dict[Parameter, Tensor],
    ) -> None:
        self._learner, self._backend, self._kernel = learner, backend, kernel
        self._output, self._gradients = output, gradients
        self._state: dict[Any, dict[str, Tensor]] = learner.optimizer.state

    def are_adams(self) -> bool:
        """Return whether they are what `iterate` makes."""
        learner, its = self._learner, self._learner.optimizer
        if learner.hparams.adaptive_lr is not None or learner.hparams.enable_amp or self._backend.bounded:
            return False
        hooks: tuple[Any, ...] = (its._optimizer_step_pre_hooks, its._optimizer_step_post_hooks)
        hooks += (_global_optimizer_pre_hooks, _global_optimizer_post_hooks)
        own = type(its) in (Adam, AdamW) and "step" not in vars(its) and learner.gated and not any(hooks)
        if not own or not isinstance(self._output, CategoricalOutput | NormalOutput):
            return False
        held = learner.parameters
        # The state is there after a first step, and the same for all that were trained from then on.
        if not all(each in self._state and each in self._gradients for each in held):
            return False
        return len({float(self._state[parameter]["step"]) for parameter in held}) == 1

    def make(self, sequences: Sequences, size: int) -> Tensor:
        """Make a step from each `size` sequences, until one isn't made; return their records, [n, 11]."""
        gradients, std = self._gradients, None
        if isinstance(self._output, NormalOutput):
            log_std = self._output.head.log_std
            std = Std(log_std.detach().view(-1, 1), gradients[log_std].view(-1))
        counts = [self._state[parameter]["step"] for parameter in self._learner.parameters]
        held = [group for group in self._learner.optimizer.param_groups if group["params"]]
        flat = self._backend.flat_gradient
        assert flat is not None
        adam = AdamSteps([self._group(group) for group in held], flat, counts[0].clone())
        (policy, value), loss = self._kernel.nets(size, gradients), self._loss()
        with one_thread(), unoptimized():
            rows = self._rows(sequences, size)
            make = self._share if size * flat.numel() > _ALONE else script(iterate)
            records = make(rows, size, policy, value, std, adam, loss)
        for count in counts:
            count.copy_(adam.steps)
        return torch.tensor(records, dtype=torch.float32).view(-1, len(StepRecord._fields))

    def _share(
        self,
        rows: Rows,
        size: int,
        policy: SmallNet,
        value: SmallNet,
        std: Std | None,
        adam: AdamSteps,
        loss: Loss,
    ) -> list[float]:
        """Do what `iterate` does, with a thread for each network."""
        records: list[float] = []
        for start in range(0, rows.targets.shape[1], size):
            rated: list[Any] = [None, None]
            targets = list(rows.targets[:, start : start + size].split(1))

            def rate(
                thread: int,
                job: int,
                start: int = start,
                targets: list[Tensor] = targets,
                rated: list[Any] = rated,
            ) -> None:
                with unoptimized():
                    if job:
                        rated[1] = script(rate_values)(rows, targets, start, size, value, loss)
                    else:
                        rated[0] = script(rate_policy)(rows, targets, start, size, policy, std, loss)

            self._backend.workers.run(rate, 2)
            (logp, entropy), values = rated
            records += script(conclude)(targets, size, logp, entropy, values, adam, loss)
            if not records[-1]:
                break
        return records

    def _rows(self, sequences: Sequences, size: int) -> Rows:
        """Return what to learn from, in the order in which it is taken."""
        total, whole, hparams = len(sequences), slice(0, len(sequences)), self._learner.hparams
        obs, _ = sequences.observations(whole)
        vectors = [each.flatten(0, 1) for each in self._backend.encode(obs)]
        old_logp, old_values, advantages, returns = (each.t() for each in sequences.loss_inputs(whole)[:4])
        advantages, clip_param = advantages / size, self._learner.coefficients.clip_param
        caps, floors = surrogate_bounds(
            advantages, clip_param=clip_param, dual_clip_param=hparams.dual_clip_param
        )
        low, high = error_bounds(old_values, returns, vf_clip_param=hparams.vf_clip_param)
        columns = (old_logp, advantages, caps, floors, returns, low, high)
        targets = torch.cat([caps if column is None else column for column in columns])
        (drawn,) = self._output.blocks(sequences.drawn(whole), total)
        mask = self._backend.policy.action_mask
        allowed = None if mask is None else mask.allowed(obs.flatten(0, 1)).flatten(1)
        if size < total and hparams.shuffle_minibatches:
            order = torch.randperm(total)
            vectors = [each.index_select(0, order) for each in vectors]
            drawn, targets = drawn.index_select(1, order), targets.index_select(1, order)
            allowed = None if allowed is None else allowed.index_select(0, order)
        return Rows(vectors[0], vectors[-1], drawn, targets, allowed)

    def _loss(self) -> Loss:
        """Return the loss as it is in this update."""
        hparams, coefficients = self._learner.hparams, self._learner.coefficients
        most = hparams.max_grad_norm
        return Loss(
            clip_param=float(coefficients.clip_param),
            dual_clip=hparams.dual_clip_param is not None,
            vf_clip=hparams.vf_clip_param is not None,
            vf_coeff=hparams.vf_coeff,
            entropy_coeff=float(coefficients.entropy_coeff),
            squash=self._output.distribution_cls is SquashedNormal,
            largest_kl_div=math.inf if hparams.target_kl_div is None else 1.5 * hparams.target_kl_div,
            max_grad_norm=math.inf if most is None else most,
            largest_log_ratio=math.log(torch.finfo(self._kernel.dtype).max) - 1e-5,
        )

    def _group(self, group: dict[str, Any]) -> Group:
        """Return an optimizer's group of parameters with their gradients and moments."""
        parameters = group["params"]
        moments = [self._state[parameter] for parameter in parameters]
        numbers = (group["lr"], *group["betas"], group["weight_decay"], group["eps"])
        return Group(
            parameters=[parameter.detach() for parameter in parameters],
            gradients=[self._gradients[parameter] for parameter in parameters],
            means=[each["exp_avg"] for each in moments],
            squares=[each["exp_avg_sq"] for each in moments],
            most=[each["max_exp_avg_sq"] for each in moments] if group["amsgrad"] else [],
            numbers=[float(number) for number in numbers],
            amsgrad=group["amsgrad"],
            maximize=group["maximize"],
            decoupled=group["decoupled_weight_decay"],
        )
