"""Optimizer steps on a policy, in blocks of rows, without reading anything back.

Whatever decides whether an optimizer step is made stays on the device: finite losses and gradients, the KL
limit, and whether an earlier step was cancelled. It reaches the host once, with the statistics.
"""

import inspect
from typing import NamedTuple

import torch
from torch import Tensor

from .buffer import Sequences, blocks
from .data import NonFiniteError
from .engine import Scope, amp_dtype, default_block_size
from .hparams import Hparams, HparamsError, check_options
from .policies import Policy, RecurrentPolicy
from .ppo import PPOLoss, ppo_loss
from .specs import num_rows

_MAX_SKIPPED_STEPS = 10
"""Optimizer steps that float16's gradient scaler may skip in a row while it looks for a scale."""


class StepRecord(NamedTuple):
    """What is known of one optimizer step; the fields of `PPOLoss` come first."""

    total: float
    policy: float
    vf: float
    entropy: float
    kl_div: float
    clip_fraction: float
    grad_norm: float
    """Before clipping."""
    tried: float
    """1 if no earlier step of the update was the last one, else 0."""
    loss_ok: float
    """1 if the loss is finite, else 0."""
    grad_ok: float
    """1 if the gradient is finite, else 0."""
    made: float
    """1 if the parameters were changed, else 0."""


class Learner:
    """Makes optimizer steps on a policy.

    Args:
        policy: Whose parameters to update.
        hparams: What to optimize, and how.
        device: Where the policy is.
        scope: Context of the model, as while collecting.
    """

    def __init__(
        self,
        policy: Policy | RecurrentPolicy,
        hparams: Hparams,
        device: torch.device,
        scope: Scope,
    ) -> None:
        self.policy, self.hparams, self.scope = policy, hparams, scope
        rows = hparams.grad_block_size or default_block_size(device)
        self.block_size = max(1, rows // hparams.sequence_length)
        """Sequences computed at a time."""
        if hparams.accumulate_grads and hparams.sgd_minibatch_size:
            self.block_size = min(self.block_size, hparams.sgd_minibatch_size)
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer = _make_optimizer(hparams, self.parameters)
        # torch's fused SGD leaves its momentum uninitialized when its first step is gated.
        momentum = any(group.get("momentum") for group in self.optimizer.param_groups)
        self.gated = bool(getattr(self.optimizer, "_step_supports_amp_scaling", False)) and not momentum
        """Whether the optimizer itself obeys `found_inf`; else the host must read the flag."""
        scaled = hparams.enable_amp and amp_dtype(device) == torch.float16
        self.scaler = torch.amp.GradScaler(device.type) if scaled else None
        self.skipped_steps = 0
        """How many steps in a row the scaler has skipped."""
        self.updates = 0
        """How many updates have begun."""
        self._on_cpu = device.type == "cpu"
        self._records: list[Tensor] = []
        self._alive = torch.ones((), dtype=torch.bool, device=device)

    def begin(self, *, lr: float, entropy_coeff: float) -> None:
        """Start the optimizer steps of one update."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.entropy_coeff = entropy_coeff
        self.updates += 1
        self._records.clear()
        self._alive.fill_(True)

    @property
    def cancelled(self) -> bool:
        """Whether the remaining steps are known to do nothing; on a GPU nobody waits to find out."""
        return self._on_cpu and not bool(self._alive)

    def step(self, sequences: Sequences, index: slice | Tensor) -> None:
        """Make one optimizer step from the sequences with these numbers, block by block."""
        total = index.stop - index.start if isinstance(index, slice) else len(index)
        self.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(len(PPOLoss._fields), device=self._alive.device)
        for block in blocks(index, self.block_size):
            loss, share = self._backward(sequences, block, total)
            losses.add_(loss, alpha=share)
        self._apply(losses)

    def _backward(self, sequences: Sequences, block: slice | Tensor, total: int) -> tuple[Tensor, float]:
        """Add the gradient of one block; return its losses [6] and its share in the step."""
        batch, hparams = sequences.take(block), self.hparams
        with self.scope():
            evaluation = self.policy.evaluate(batch.obs, batch.actions, batch.state)
        loss = ppo_loss(
            logp=evaluation.logp,
            old_logp=batch.logp,
            advantages=batch.advantages,
            values=evaluation.values,
            old_values=batch.values,
            returns=batch.returns,
            entropy=evaluation.entropy,
            clip_param=hparams.clip_param,
            vf_clip_param=hparams.vf_clip_param,
            dual_clip_param=hparams.dual_clip_param,
            vf_coeff=hparams.vf_coeff,
            entropy_coeff=self.entropy_coeff,
        )
        share = num_rows(batch.obs) / total
        objective = share * loss.total
        (objective if self.scaler is None else self.scaler.scale(objective)).backward()
        return torch.stack(loss).detach(), share

    @torch.no_grad()
    def _apply(self, losses: Tensor) -> None:
        """Make the pending optimizer step unless something speaks against it, and record it."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        grad_norm = torch.nn.utils.get_total_norm(gradients)
        if self.hparams.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.hparams.max_grad_norm, grad_norm)
        pending = PPOLoss(*losses)
        loss_ok, grad_ok = pending.total.isfinite(), grad_norm.isfinite()
        kl_ok = torch.ones_like(loss_ok)
        if self.hparams.target_kl_div is not None:
            kl_ok = pending.kl_div <= 1.5 * self.hparams.target_kl_div
        tried = self._alive.clone()
        go = tried & loss_ok & grad_ok & kl_ok
        if self.gated:
            self.optimizer.found_inf = (~go).to(torch.float32)  # type: ignore[attr-defined]
            self.optimizer.step()
        elif go.item():
            self.optimizer.step()
        if self.scaler is not None:
            self.scaler.update()
        # A step that the scaler skips is tried again with a smaller scale; the rest of the update goes on.
        self._alive.copy_(tried & loss_ok & kl_ok if self.scaler is not None else go)
        rest = torch.stack([grad_norm, *(flag.to(grad_norm.dtype) for flag in (tried, loss_ok, grad_ok, go))])
        self._records.append(torch.cat([losses, rest.to(losses.dtype)]))

    def records(self) -> Tensor:
        """Return a `StepRecord` for each optimizer step of the update, on the device: [steps, 11]."""
        return torch.stack(self._records)

    def summarize(self, records: list[StepRecord]) -> list[float]:
        """Return the mean losses and gradient norm of the steps that were tried, [7].

        Args:
            records: Those of `records`, on the host.

        Raises:
            NonFiniteError: If a loss or a gradient was not finite; that step was not made, nor any after it.
        """
        tried = [record for record in records if record.tried]
        for number, record in enumerate(tried):
            self.skipped_steps = 0 if record.grad_ok else self.skipped_steps + 1
            fatal = self.scaler is None or self.skipped_steps > _MAX_SKIPPED_STEPS
            what = "the loss" if not record.loss_ok else "the gradient"
            if not record.loss_ok or (not record.grad_ok and fatal):
                raise NonFiniteError(
                    f"{what} is NaN or infinite in optimizer step {number} of update {self.updates}; the "
                    "parameters are as they were before it: lower the learning rate, or look for a division "
                    "by zero in the model"
                )
        sound = [record for record in tried if record.grad_ok] or tried
        return [
            sum(column) / len(sound) for column in list(zip(*sound, strict=True))[: len(PPOLoss._fields) + 1]
        ]


def _make_optimizer(hparams: Hparams, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer, fused where its class can be: that is faster, and lets the device gate it."""
    if not isinstance(hparams.optimizer_cls, type) or not issubclass(
        hparams.optimizer_cls, torch.optim.Optimizer
    ):
        raise HparamsError(f"optimizer_cls is {hparams.optimizer_cls!r}, expected a class of torch.optim")
    closure = inspect.signature(hparams.optimizer_cls.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise HparamsError(
            f"optimizer_cls is {hparams.optimizer_cls.__name__}, which needs a closure: use another"
        )
    options = {"lr": 1e-3, **(hparams.optimizer_config or {})}
    check_options(options, hparams.optimizer_cls, "optimizer_config")
    can_fuse = "fused" in inspect.signature(hparams.optimizer_cls).parameters
    if can_fuse and not {"fused", "foreach", "differentiable", "capturable"} & set(options):
        options["fused"] = True
    try:
        return hparams.optimizer_cls(parameters, **options)
    except (TypeError, ValueError) as error:
        raise HparamsError(f"optimizer_config: {error}") from None
