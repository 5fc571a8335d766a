"""A default model's passes over many rows on a CPU, by its kernel."""

from contextlib import AbstractContextManager, nullcontext
from itertools import repeat
from typing import Any, NamedTuple, final

import torch
from tensordict import TensorDict
from torch import Tensor

from ..buffer import Columns, Sequences, blocks, count
from ..data import Batch, Evaluation
from ..hparams import Hparams
from ..passes import Passes
from ..policies import Policy, RecurrentPolicy
from ..ppo import policy_gradient, surrogate_bounds, value_gradient
from ..specs import num_rows
from ..workers import Workers
from .base import Kernel, views
from .outputs import Output, make_output

_MOST_JOBS = 16
"""Parts of a minibatch that threads take one after the other."""
_MOST_GRADIENTS = 2**24
"""Numbers in the gradients of all jobs."""


class _Targets(NamedTuple):
    """What the gradient of one block needs beside the observations; tensors are [N · L, 1]."""

    actions: Tensor
    """[N · L, *A]."""
    old_logp: Tensor
    advantages: Tensor
    """Â divided by the number of rows of the minibatch."""
    caps: Tensor
    floors: Tensor | None
    """As of `surrogate_bounds`."""
    returns: Tensor
    lowest: Tensor | None
    highest: Tensor | None
    """As of `value_gradient`."""
    value_weight: float
    """What the derivative by a value is multiplied by."""


@final
class KernelPasses(Passes):
    """Shares blocks of rows among threads, each with a kernel of its own.

    Neighboring blocks make a job with a gradient of its own, and those are summed in their order: the same
    comes out whichever thread was faster, and however many there are.

    Args:
        policy: Whose model it is.
        hparams: What the loss is, and how many rows to compute at a time.
        kernel_cls: The model's kernel.
    """

    name = "kernels"

    def __init__(self, policy: Policy | RecurrentPolicy, hparams: Hparams, kernel_cls: type[Kernel]) -> None:
        super().__init__(policy, hparams, policy.device)
        dtype = torch.bfloat16 if hparams.enable_amp else self.parameters[0].dtype
        self._rows = self.block_size * hparams.sequence_length
        self._kernels = [kernel_cls(policy.model, self._rows, dtype)]
        outputs = [make_output(self._kernels[0], policy.distribution_cls)]
        for _ in range(0 if outputs[0].draws else torch.get_num_threads() - 1):
            self._kernels.append(kernel_cls(policy.model, self._rows, dtype))
            outputs.append(make_output(self._kernels[-1], policy.distribution_cls))
        self._outputs: list[Output] = outputs
        self._workers = Workers(len(outputs))
        size = sum(parameter.numel() for parameter in self.parameters)
        jobs = max(1, min(_MOST_JOBS, _MOST_GRADIENTS // size))
        flats = torch.zeros((jobs, size), dtype=self.parameters[0].dtype)
        self._gradients = [(flat, views(flat, self.parameters)) for flat in flats]
        self.flat_gradient = flats[0]

    def threads(self, rows: int) -> AbstractContextManager[None]:
        """Return a context in which torch leaves the cores to the workers, if there is work for them."""
        return self._workers.instead_of_torchs() if rows > self._rows else nullcontext()

    def prepare(self) -> None:
        """Let the kernels take in the parameters."""
        for kernel in self._kernels:
            kernel.prepare()

    def step(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, Tensor, TensorDict | None]:
        """Return features [B, ...], values [B, 1] and the next state for observations [B, ...]."""
        features = self._kernels[0].head.features
        parts = list(blocks(slice(0, num_rows(obs)), self._rows))
        if len(parts) == 1:
            output, values, state = self._run(self._kernels[0], obs, state)
            return features(output), values, state
        done: list[Any] = [None] * len(parts)

        def work(thread: int, job: int) -> None:
            before = None if state is None else state[parts[job]]
            done[job] = self._run(self._kernels[thread], obs[parts[job]], before)

        self._workers.run(work, len(parts))
        outputs, each_values, states = zip(*done, strict=True)
        after = None if state is None else torch.cat(states)
        return features(torch.cat(outputs)), torch.cat(each_values), after

    def _run(
        self, kernel: Kernel, obs: Batch, state: TensorDict | None
    ) -> tuple[Tensor, Tensor, TensorDict | None]:
        """Return the head's output, the values and the next state for one block of observations [N, ...]."""
        output, values = kernel.forward(self._encode(obs).unsqueeze(1), state)
        return output, values, kernel.state()

    def gradient(self, sequences: Sequences, index: slice | Tensor, entropy_coeff: float | Tensor) -> Tensor:
        """Put the gradient of the loss of some sequences into the parameters; return the losses, [6]."""
        parts = list(blocks(index, self.block_size))
        total = count(index) * self.hparams.sequence_length
        entropy_weight = float(entropy_coeff) / total
        columns = sequences.columns(index)
        targets = self._targets(sequences.actions(index), columns, total)
        per_job = -(-len(parts) // len(self._gradients))
        jobs = -(-len(parts) // per_job)
        said: list[Any] = [None] * len(parts)
        self.prepare()

        def work(thread: int, job: int) -> None:
            flat, self._kernels[thread].gradients = self._gradients[job]
            flat.zero_()
            for n in range(job * per_job, min((job + 1) * per_job, len(parts))):
                obs, state = sequences.observations(parts[n])
                said[n] = self._descend(thread, self._encode(obs), state, targets[n], entropy_weight)

        self._workers.run(work, jobs)
        whole, gradients = self._gradients[0]
        for flat, _ in self._gradients[1:jobs]:
            whole.add_(flat)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        evaluation = Evaluation(*(torch.cat(column) for column in zip(*said, strict=True)))
        return torch.stack(self.loss(evaluation, columns, entropy_coeff))

    def _targets(self, actions: Tensor, columns: Columns, total: int) -> list["_Targets"]:
        """Return what the gradient of a minibatch of `total` rows needs, block by block."""
        advantages = columns.advantages / total
        caps, floors = surrogate_bounds(
            advantages, clip_param=self.hparams.clip_param, dual_clip_param=self.hparams.dual_clip_param
        )
        lowest = highest = None
        if self.hparams.vf_clip_param is not None:
            lowest = columns.old_values - self.hparams.vf_clip_param
            highest = columns.old_values + self.hparams.vf_clip_param
        parts = (actions, columns.old_logp, advantages, caps, floors, columns.returns, lowest, highest)
        split: list[Any] = [repeat(None) if part is None else part.split(self._rows) for part in parts]
        weight = self.hparams.vf_coeff / total
        return [_Targets._make((*block, weight)) for block in zip(*split, strict=False)]

    def _descend(
        self,
        thread: int,
        vectors: Tensor,
        state: TensorDict | None,
        targets: "_Targets",
        entropy_weight: float,
    ) -> Evaluation:
        """Add the gradient of one block; return what the policy says of it."""
        output = self._outputs[thread]
        said: list[Tensor] = []

        # Few operations, since they are small: for each of them a thread may have to wait for Python's lock.
        def output_gradient(raw: Tensor) -> Tensor:
            said.extend(output.rate(raw, targets.actions))
            d_logp = policy_gradient(
                said[0], targets.old_logp, targets.advantages, targets.caps, targets.floors
            )
            return output.backward(d_logp, -entropy_weight)

        def error_gradient(values: Tensor) -> Tensor:
            said.append(values)
            d_values = value_gradient(values, targets.returns, targets.lowest, targets.highest)
            return d_values.mul_(targets.value_weight)

        self._kernels[thread].descend(vectors, state, output_gradient, error_gradient)
        logp, entropy, values = said
        return Evaluation(logp, values, entropy)

    def _encode(self, obs: Batch) -> Tensor:
        """Return observations as the kernels take them: one vector each."""
        return self.policy.model.encoder(self.policy.normalize(obs))
