"""The policy's forward and backward passes over many rows, a block of them at a time."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor

from ..common.device import one_thread
from ..common.types import Batch, Evaluation, PolicyStep
from ..hparams import Hparams
from ..models.heads import bounded_heads
from ..policies.memory import Breaks
from ..policies.policy import Policy, RecurrentPolicy
from ..specs import num_rows
from .bounds import AUTOGRAD_ALONE
from .losses import PPOLoss, ppo_loss
from .precision import amp_dtype, autocast_scope, matmul_scope
from .rollout_buffer import LossInputs, Sequences, count, microbatches
from .schedules import Coefficients


class Backend(ABC):
    """How the policy's model is run, while collecting and while updating.

    Args:
        policy: Whose model it is.
        hparams: What the loss is, and how many rows to compute at a time.
        device: Where the policy is.
    """

    name: str
    """What `Algorithm.params` says of how the model is run."""
    block_size: int
    """Sequences computed at a time."""
    scaler: torch.amp.GradScaler | None = None
    """What scales the loss for float16."""
    values_apart: bool = False
    """Whether `act` leaves the values out, because `values` returns them for many steps at once."""
    flat_gradient: Tensor | None = None
    """The gradient of all parameters in one piece, if it is."""

    def __init__(self, policy: Policy | RecurrentPolicy, hparams: Hparams, device: torch.device) -> None:
        self.policy, self.hparams, self.device = policy, hparams, device
        assert hparams.grad_block_size is not None
        self.block_size = max(1, hparams.grad_block_size // hparams.sequence_length)
        if hparams.accumulate_grads and hparams.sgd_minibatch_size:
            self.block_size = min(self.block_size, hparams.sgd_minibatch_size)
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self._size = sum(parameter.numel() for parameter in self.parameters)
        self.bounded = bounded_heads(policy.model)
        """What has to be kept within bounds after an optimizer step."""

    def threads(self, rows: int) -> AbstractContextManager[None]:
        """Return the context for all computation but the environment's, on so many rows at a time."""
        small = (
            rows * self._size <= AUTOGRAD_ALONE
            and self.device.type == "cpu"
            and self.hparams.engine != "compile"
        )
        return one_thread() if small else nullcontext()

    @abstractmethod
    def prepare(self) -> None:
        """Take in the parameters, before the first step of a horizon."""

    @abstractmethod
    def step(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, Tensor, TensorDict | None]:
        """Return features [B, ...], values [B, 1] and the next state for observations [B, ...]."""

    def act(self, obs: Batch, state: TensorDict | None, *, deterministic: bool) -> PolicyStep:
        """Return what the policy does with observations [B, ...]; without values where they are apart."""
        features, values, state = self.step(obs, state)
        drawn, logp, actions = self.policy.draw(features, deterministic=deterministic)
        return PolicyStep(actions, logp, values, state, drawn)

    def values(self, obs: Batch, state: TensorDict | None) -> Tensor:
        """Return the values [N, 1] of observations [N, ...] and recurrent states [N, ...]."""
        return self.step(obs, state)[1]

    @abstractmethod
    def gradient(self, sequences: Sequences, index: slice | Tensor, coefficients: Coefficients) -> Tensor:
        """Put the gradient of the loss of some sequences into the parameters; return the losses, [6]."""

    def loss(self, evaluation: Evaluation, loss_inputs: LossInputs, coefficients: Coefficients) -> PPOLoss:
        """Return the loss of rows, given what the policy says of their actions now."""
        hparams = self.hparams
        return ppo_loss(
            **evaluation._asdict(),
            **loss_inputs._asdict(),
            vf_clip_param=hparams.vf_clip_param,
            dual_clip_param=hparams.dual_clip_param,
            vf_coeff=hparams.vf_coeff,
            **coefficients._asdict(),
        )


@final
class EagerBackend(Backend):
    """Any model, forward by its own code and backward by autograd; compiled if that is asked for."""

    def __init__(self, policy: Policy | RecurrentPolicy, hparams: Hparams, device: torch.device) -> None:
        super().__init__(policy, hparams, device)
        self._autocast = autocast_scope(hparams, device)
        self._precision = matmul_scope(hparams, device)
        self._forward: Any = policy.forward_step
        self._losses: Any = self._losses_of
        self.name = "eager"
        if hparams.engine == "compile":
            self.name = "compile"
            self._forward, self._losses = (
                torch.compile(f, dynamic=False) for f in (self._forward, self._losses)
            )
        if hparams.enable_amp and amp_dtype(device) == torch.float16:
            self.scaler = torch.amp.GradScaler(device.type)

    def prepare(self) -> None:
        """Do nothing: the model reads its parameters itself."""

    def step(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, Tensor, TensorDict | None]:
        """Return features [B, ...], values [B, 1] and the next state."""
        with self._precision(), self._autocast():
            return self._forward(obs, state)

    @torch.enable_grad()
    def gradient(self, sequences: Sequences, index: slice | Tensor, coefficients: Coefficients) -> Tensor:
        """Put the gradient into the parameters, by autograd; return the losses, [6]."""
        for parameter in self.parameters:
            # Kept where they are: a recording writes to them.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad.zero_()
        total = count(index)
        losses = torch.zeros(len(PPOLoss._fields), device=self.device)
        with self._precision():
            for block in microbatches(index, self.block_size):
                obs, state = sequences.observations(block)
                loss_inputs = sequences.loss_inputs(block, index)
                evaluated = obs, sequences.drawn(block), state, sequences.breaks(block)
                loss = self._losses(*evaluated, loss_inputs, coefficients)
                share = num_rows(obs) / total
                objective = share * loss.total
                (objective if self.scaler is None else self.scaler.scale(objective)).backward()
                losses.add_(torch.stack(loss).detach(), alpha=share)
        return losses

    def _losses_of(
        self,
        obs: Batch,
        drawn: Batch,
        state: TensorDict | None,
        breaks: Breaks | None,
        loss_inputs: LossInputs,
        coefficients: Coefficients,
    ) -> PPOLoss:
        with self._autocast():
            evaluation = self.policy.evaluate(obs, drawn, state, breaks)
        return self.loss(evaluation, loss_inputs, coefficients)
