"""Optimizer steps of Adam's own from a default MLP: many in one call."""

import math
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam, AdamW
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from ...common.device import one_thread
from ...distributions import SquashedNormal
from ...ppo.bounds import MACHINE_CODE_ALONE, MACHINE_CODE_PARTS, MACHINE_CODE_ROWS, STEP_ALONE
from ...ppo.learner import Learner
from ...ppo.rollout_buffer import Sequences
from ...ppo.step_record import StepRecord
from ..native.available import MachineCode, machine_code
from .backend import MOST_GRADIENTS, KernelBackend
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


def _parts(rows: int, parameters: int) -> int:
    """Return in how many parts threads share the rows of a step; 0 if one thread makes it alone."""
    if rows * parameters <= MACHINE_CODE_ALONE:
        return 0
    return max(1, min(rows // MACHINE_CODE_ROWS, MACHINE_CODE_PARTS, MOST_GRADIENTS // parameters))


@final
class ManySteps:
    """Optimizer steps of some SGD iterations.

    Args:
        learner: Makes them.
        backend: Whose model it is.
        kernel: Of the calling thread.
        output: Of the kernel's head.
        gradients: By parameter, parts of one flat tensor.
        programs: In machine code, by what they are for; the last one is kept.
    """

    def __init__(
        self,
        learner: Learner,
        backend: KernelBackend,
        kernel: MLPKernel,
        output: Output,
        gradients: dict[Parameter, Tensor],
        programs: dict[Any, Any],
    ) -> None:
        self._learner, self._backend, self._kernel = learner, backend, kernel
        self._output, self._gradients, self._programs = output, gradients, programs
        self._num_parameters = sum(parameter.numel() for parameter in gradients)
        self._state: dict[Any, dict[str, Tensor]] = learner.optimizer.state
        self.way = ""
        """How they are made."""

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

    def make(self, sequences: Sequences, size: int, iterations: int) -> Tensor:
        """Make a step from each `size` sequences, until one isn't made; return their records, [n, 11].

        Args:
            sequences: What to learn from.
            size: Of a minibatch.
            iterations: How often to take them all.
        """
        gradients, std = self._gradients, None
        if isinstance(self._output, NormalOutput):
            log_std = self._output.head.log_std
            std = Std(log_std.detach().view(-1, 1), gradients[log_std].view(-1))
        counts = [self._state[parameter]["step"] for parameter in self._learner.parameters]
        held = [group for group in self._learner.optimizer.param_groups if group["params"]]
        flat = self._backend.flat_gradient
        assert flat is not None
        adam = AdamSteps([self._group(group) for group in held], flat, counts[0].clone())
        # Machine code has storage of its own.
        rows_of_nets = 0 if self.in_machine_code(size) else size
        (policy, value), loss = self._kernel.nets(rows_of_nets, gradients), self._loss()
        orders = self._orders(len(sequences), size, iterations)
        with one_thread(), unoptimized():
            rows = self._rows(sequences, size)
            if program := self._program(policy, value, std, size):
                steps = orders.view(-1, size)
                made = program.make(rows, steps, (policy, value), std, adam, loss, self._backend.workers)
            else:
                made = self._iterate(rows, orders, size, policy, value, std, adam, loss)
        for count in counts:
            count.copy_(adam.steps)
        return made

    def in_machine_code(self, size: int) -> bool:
        """Return whether steps from so many sequences are made in machine code."""
        return self._machine_code(size) is not None

    def _machine_code(self, size: int) -> MachineCode | None:
        # Without an eps, what fills up vectors would be 0 / 0.
        if not all(group["eps"] > 0 for group in self._learner.optimizer.param_groups):
            return None
        return machine_code(size, self._num_parameters)

    def _program(self, policy: SmallNet, value: SmallNet, std: Std | None, size: int) -> Any:
        """Return machine code for steps from so many rows; None if there is none."""
        if (found := self._machine_code(size)) is None:
            return None
        parts = _parts(size, self._num_parameters)
        self.way = f"many at once, in machine code{', parts of the rows shared by threads' if parts else ''}"
        normal = 0 if std is None else len(std.log_std)
        shapes = (tuple(weight.shape) for net in (policy, value) for weight in net.weights)
        threads = self._backend.workers.count
        key = (*shapes, len(policy.weights), normal, size, parts, threads, policy.weights[0].dtype)
        if key not in self._programs:
            self._programs.clear()
            self._programs[key] = found.program((policy, value), normal, size, parts, threads)
        return self._programs[key]

    def _orders(self, total: int, size: int, iterations: int) -> Tensor:
        """Return in which order to take so many rows in each iteration, [iterations, total]."""
        if size < total and self._learner.hparams.shuffle_minibatches:
            return torch.stack([torch.randperm(total) for _ in range(iterations)])
        return torch.arange(total).expand(iterations, total).contiguous()

    def _iterate(
        self,
        rows: Rows,
        orders: Tensor,
        size: int,
        policy: SmallNet,
        value: SmallNet,
        std: Std | None,
        adam: AdamSteps,
        loss: Loss,
    ) -> Tensor:
        """Make the steps by operations of torch."""
        shared = size * adam.gradient.numel() > STEP_ALONE
        self.way = f"many at once, {'a thread for each network' if shared else 'on one thread'}"
        make = self._share if shared else script(iterate)
        records: list[float] = []
        for order in orders:
            records += make(rows.take(order), size, policy, value, std, adam, loss)
            if not records[-1]:
                break
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
        """Return what to learn from."""
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
