"""A default model's passes over many rows on a CPU, by its kernel."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import repeat
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn import Parameter

from ...common.device import one_thread
from ...common.types import Batch, Evaluation, PolicyStep
from ...hparams import Hparams
from ...policies.memory import Breaks
from ...policies.policy import Policy, RecurrentPolicy
from ...ppo.backend import Backend
from ...ppo.bounds import ACTING_ALONE, ACTING_PARTS, STEP
from ...ppo.rollout_buffer import LossInputs, Sequences, count, microbatches
from ...ppo.schedules import Coefficients
from ...specs import num_rows
from ..thread_pool import Workers
from .acting import Forward
from .base import Kernel, script, unoptimized, views
from .heads import AutogradOutput, Output, Targets, make_output
from .loss_gradients import error_bounds, surrogate_bounds, value_gradient
from .mlp import MLPKernel

_MOST_JOBS = 64
"""Parts of a minibatch that threads take one after the other; the slower one makes the other wait for one."""

MOST_GRADIENTS = 2**23
"""Numbers in the gradients of all jobs."""


def is_small(rows: int, size: int) -> bool:
    """Return whether an optimizer step from so many rows is a small one, for so many parameters."""
    return rows * size <= STEP


def _joined(parts: list[PolicyStep]) -> PolicyStep:
    """Return as one what a feedforward policy does with parts of its observations."""
    actions, logp, _, _, drawn = zip(*parts, strict=True)
    return PolicyStep(torch.cat(actions), torch.cat(logp), None, None, torch.cat(drawn))


@final
class KernelBackend(Backend):
    """Shares blocks of rows among threads, each with a kernel of its own.

    Neighboring blocks make a job with a gradient of its own, and those are summed in their order: the same
    comes out whichever thread was faster, and however many there are.

    Args:
        policy: Whose model it is.
        hparams: What the loss is, and how many rows to compute at a time.
        kernel_cls: The model's kernel.
        acting_rows: How many rows to compute at a time where no gradient is wanted.
    """

    name = "kernels"

    def __init__(
        self, policy: Policy | RecurrentPolicy, hparams: Hparams, kernel_cls: type[Kernel], acting_rows: int
    ) -> None:
        super().__init__(policy, hparams, policy.device)
        dtype = torch.bfloat16 if hparams.enable_amp else self.parameters[0].dtype
        self._rows = self.block_size * hparams.sequence_length
        self._most_rows = max(self._rows, acting_rows)
        self._kernels = [
            kernel_cls(policy.model, self._most_rows, dtype) for _ in range(torch.get_num_threads())
        ]
        self._outputs: list[Output] = [make_output(each, policy.distribution_cls) for each in self._kernels]
        self._weighted = [AutogradOutput(each, policy.distribution_cls) for each in self._kernels]
        """Where rows don't all count the same."""
        self._mlps = [kernel for kernel in self._kernels if isinstance(kernel, MLPKernel)]
        self.values_apart = bool(self._mlps)
        self.workers = Workers(len(self._outputs))
        self._forward: Forward | None = None
        if self.values_apart:
            self._forward = Forward(policy, self._mlps[0], self._outputs[0], self.workers.count)
        self._value_gradient = script(value_gradient)
        size = sum(parameter.numel() for parameter in self.parameters)
        jobs = max(1, min(_MOST_JOBS, MOST_GRADIENTS // size))
        self._flats = torch.zeros((jobs, size), dtype=self.parameters[0].dtype)
        self._gradients = [views(flat, self.parameters) for flat in self._flats]
        self._sum = torch.zeros_like(self._flats[0])
        self._whole = views(self._sum, self.parameters)
        self.flat_gradient = self._sum

    def threads(self, rows: int) -> AbstractContextManager[None]:
        """Return a context in which torch leaves the cores to the workers."""
        return one_thread()

    def is_small(self, size: int) -> bool:
        """Return whether optimizer steps from so many sequences are small ones."""
        return size <= self.block_size and is_small(size * self.hparams.sequence_length, self._size)

    def alone(self) -> tuple[Kernel, Output, dict[Parameter, Tensor]]:
        """Return a thread's kernel and output, and the parts of the flat gradient by parameter."""
        for parameter, gradient in self._whole.items():
            parameter.grad = gradient
        return self._kernels[0], self._outputs[0], self._whole

    def prepare(self) -> None:
        """Let the kernels take in the parameters."""
        for kernel in self._kernels:
            kernel.prepare()
        if self._forward is not None:
            self._forward.prepare()

    def act(self, obs: Batch, state: TensorDict | None, *, deterministic: bool) -> PolicyStep:
        """Return what the policy does with observations [B, ...]; without values where they are apart."""
        if (forward := self._forward) is None:
            return super().act(obs, state, deterministic=deterministic)
        if not deterministic and (noise := forward.noise(num_rows(obs))) is not None:

            def act(thread: int, part: Batch, noise: Tensor) -> PolicyStep:
                return forward.act(thread, self.encode(part)[0], noise)

            done = self._by_parts(act, obs, noise)
            return done[0] if len(done) == 1 else _joined(done)
        if num_rows(obs) > self._part(num_rows(obs)):
            output = torch.cat(self._by_parts(self._head_output, obs), 1).t().contiguous()
        else:
            with unoptimized():
                output = self._mlps[0].act(self.encode(obs)[0])
        # Distributions of rlstack's own take features by their names, whatever holds them.
        features = self.policy.allow(self._kernels[0].head.parts(output), obs)
        drawn, logp, actions = self.policy.draw(features, deterministic=deterministic)
        return PolicyStep(actions, logp, None, None, drawn)

    def _head_output(self, thread: int, part: Batch) -> Tensor:
        """Return the head's output [k, N] for one part of observations [N, ...]."""
        with unoptimized():
            return self._mlps[thread].head_output(self.encode(part)[0])

    def values(self, obs: Batch, state: TensorDict | None) -> Tensor:
        """Return the values [N, 1] of observations [N, ...] and recurrent states [N, ...]."""
        if (forward := self._forward) is None:
            return super().values(obs, state)
        if forward.values_ready(num_rows(obs)):
            found = self._by_parts(lambda thread, part: forward.values(thread, self.encode(part)[-1]), obs)
            return torch.cat(found)

        def values(thread: int, part: Batch) -> Tensor:
            with unoptimized():
                return self._mlps[thread].values(self.encode(part)[-1])

        return torch.cat(self._by_parts(values, obs), 1).t()

    def _features(self, output: Tensor, obs: Batch) -> TensorDict:
        """Return the features that the head's output [k, N] stands for, given the observations [N, ...]."""
        # Row by row: what is drawn at random follows the order in memory.
        return self.policy.allow(self._kernels[0].head.features(output.t().contiguous()), obs)

    def _part(self, rows: int) -> int:
        """Return how many of so many rows a thread is given at a time: it doesn't depend on their number."""
        share = rows if rows * self._size <= ACTING_ALONE else -(-rows // ACTING_PARTS)
        return min(share, self._most_rows)

    def _by_parts(self, function: Callable[..., Any], *rows: Any) -> list[Any]:
        """Return `function(thread, *part)` of all parts of some rows, each [N, ...] or None."""
        total = num_rows(rows[0])
        parts = list(microbatches(slice(0, total), self._part(total)))
        done: list[Any] = [None] * len(parts)
        if len(parts) == 1:
            return [function(0, *rows)]

        def work(thread: int, job: int) -> None:
            done[job] = function(thread, *(None if each is None else each[parts[job]] for each in rows))

        self.workers.run(work, len(parts))
        return done

    def step(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, Tensor, TensorDict | None]:
        """Return features [B, ...], values [B, 1] and the next state for observations [B, ...]."""
        done = self._by_parts(self._run, obs, state)
        outputs, values, states = zip(*done, strict=True)
        after = None if state is None else torch.cat(states)
        return self._features(torch.cat(outputs, 1), obs), torch.cat(values, 1).t(), after

    def _run(
        self, thread: int, obs: Batch, state: TensorDict | None
    ) -> tuple[Tensor, Tensor, TensorDict | None]:
        """Return the head's output, the values and the next state for one block of observations [N, ...]."""
        kernel = self._kernels[thread]
        with unoptimized():
            output, values = kernel.forward([each.unsqueeze(1) for each in self.encode(obs)], state)
            return output, values, kernel.state()

    def gradient(self, sequences: Sequences, index: slice | Tensor, coefficients: Coefficients) -> Tensor:
        """Put the gradient of the loss of some sequences into the parameters; return the losses, [6]."""
        parts = list(microbatches(index, self.block_size))
        total = count(index) * self.hparams.sequence_length
        entropy_weight = float(coefficients.entropy_coeff) / total
        loss_inputs = sequences.loss_inputs(index)
        targets = self._targets(sequences.drawn(index), loss_inputs, total, coefficients.clip_param)
        per_job = -(-len(parts) // len(self._gradients))
        jobs = -(-len(parts) // per_job)
        said: list[Any] = [None] * len(parts)
        self.prepare()

        def work(thread: int, job: int) -> None:
            self._flats[job].zero_()
            self._kernels[thread].gradients = self._gradients[job]
            for n in range(job * per_job, min((job + 1) * per_job, len(parts))):
                obs, state = sequences.observations(parts[n])
                inputs = self.encode(obs), state, sequences.breaks(parts[n])
                target = targets[n]
                if (mask := self.policy.action_mask) is not None:
                    target = target._replace(allowed=mask.allowed(obs.flatten(0, 1)))
                said[n] = self._descend(thread, *inputs, target, entropy_weight)

        self.workers.run(work, jobs)
        torch.sum(self._flats[:jobs], 0, out=self._sum)
        self.alone()
        evaluation = Evaluation(*(torch.cat(column, 1).t() for column in zip(*said, strict=True)))
        return torch.stack(self.loss(evaluation, loss_inputs, coefficients))

    def _targets(
        self, drawn: Batch, loss_inputs: LossInputs, total: int, clip_param: float | Tensor
    ) -> list[Targets]:
        """Return what the gradient of a minibatch of `total` rows needs, block by block."""
        hparams, rows = self.hparams, self._rows
        old_logp, old_values, advantages, returns = (column.t() for column in loss_inputs[:4])
        weights = None if loss_inputs.weights is None else loss_inputs.weights.t()
        advantages = advantages / total
        if weights is not None:
            advantages = advantages * weights
        caps, floors = surrogate_bounds(
            advantages, clip_param=clip_param, dual_clip_param=hparams.dual_clip_param
        )
        lowest, highest = error_bounds(old_values, returns, vf_clip_param=hparams.vf_clip_param)
        parts = (old_logp, advantages, caps, floors, returns, lowest, highest, weights)
        split: list[Any] = [repeat(None) if part is None else part.split(rows, 1) for part in parts]
        weight = hparams.vf_coeff / total
        per_block = zip(self._rating(weights)[0].blocks(drawn, rows), *split, strict=False)
        return [Targets._make((*block, weight, None)) for block in per_block]

    def _rating(self, weights: Tensor | None) -> Sequence[Output]:
        """Return for each thread what rates actions."""
        return self._outputs if weights is None else self._weighted

    def _descend(
        self,
        thread: int,
        vectors: list[Tensor],
        state: TensorDict | None,
        breaks: Breaks | None,
        targets: Targets,
        entropy_weight: float,
    ) -> Evaluation:
        """Add the gradient of one block; return what the policy says of it."""
        output = self._rating(targets.weights)[thread]
        said: list[Tensor] = []

        def output_gradient(raw: Tensor) -> Tensor:
            logp, entropy, d_output = output.gradient(raw, targets, -entropy_weight)
            said.extend((logp, entropy))
            return d_output

        def error_gradient(values: Tensor) -> Tensor:
            said.append(values)
            d_values: Tensor = self._value_gradient(values, targets.returns, targets.lowest, targets.highest)
            d_values.mul_(targets.value_weight)
            return d_values if targets.weights is None else d_values.mul_(targets.weights)

        with unoptimized():
            ended = breaks and breaks.ended
            self._kernels[thread].forward_backward(vectors, state, output_gradient, error_gradient, ended)
        logp, entropy, values = said
        return Evaluation(logp, values, entropy)

    def encode(self, obs: Batch) -> list[Tensor]:
        """Return observations as kernels take them: vectors for policy and values, or for both."""
        model, obs = self.policy.model, self.policy.normalize(obs)
        encoders = (model.encoder, model.value_encoder)
        return [encoder(obs) for encoder in encoders if encoder is not None]
