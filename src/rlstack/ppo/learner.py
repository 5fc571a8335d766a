"""Optimizer steps on a policy, without reading anything back.

Whatever decides whether an optimizer step is made stays on the device: finite losses and gradients, the KL
limit, and whether an earlier step was cancelled. It reaches the host once, with the statistics.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..common.device import reads_wait
from ..common.errors import NonFiniteError
from ..common.metrics import read_back
from ..distributed.ranks import ALONE, Ranks
from ..hparams import Hparams
from ..policies.file import plain_name
from .backend import Backend
from .losses import PPOLoss
from .optimizer_options import OptimizerOptions
from .optimizers import lay_out, make_optimizer
from .parameter_groups import add_parameters, regroup
from .rollout_buffer import Sequences
from .schedules import Coefficients
from .step_record import StepRecord

_MAX_SKIPPED_STEPS = 10
"""Optimizer steps that float16's gradient scaler may skip in a row while it looks for a scale."""


class Learner:
    """Makes optimizer steps on a policy.

    Args:
        backend: Whose parameters to update, and how the gradient is computed.
        hparams: What to optimize, and how.
        ranks: Who makes the same steps, each with a gradient of its own.
    """

    def __init__(self, backend: Backend, hparams: Hparams, ranks: Ranks = ALONE) -> None:
        self.backend, self.hparams, self.ranks = backend, hparams, ranks
        self.scaler, device = backend.scaler, backend.device
        self.optimizer, self.example_state = make_optimizer(hparams, self._named_parameters(), device)
        self.parameters = self._held()
        # torch's fused SGD leaves its momentum uninitialized when its first step is gated.
        momentum = any(group.get("momentum") for group in self.optimizer.param_groups)
        self.gated = bool(getattr(self.optimizer, "_step_supports_amp_scaling", False)) and not momentum
        """Whether the optimizer itself obeys `found_inf`; else the host must read the flag."""
        self.options = OptimizerOptions(self.optimizer, hparams)
        records = "capturable" in self.optimizer.defaults and self.options.places[0] is not None
        self.capturable = self.gated and records and ranks.recordable
        """Whether optimizer steps read nothing from the host, and can be recorded."""
        self._reads_wait = reads_wait(device)
        # A tensor where steps may be recorded or compiled: those read it each time.
        tensors = self._reads_wait or hparams.engine == "compile"
        entropy_coeff, clip_param = (
            torch.tensor(float(value), device=device) if schedule is not None and tensors else value
            for value, schedule in (
                (hparams.entropy_coeff, hparams.entropy_coeff_schedule),
                (hparams.clip_param, hparams.clip_param_schedule),
            )
        )
        self.coefficients = Coefficients(entropy_coeff, clip_param)
        self.lr_scale = 1.0
        """What learning rates have been multiplied by: less than 1 after training had to be taken back."""
        self.skipped_steps = 0
        """How many steps in a row the scaler has skipped."""
        self.updates = 0
        """How many updates have begun."""
        self.warm = False
        """Whether an update has been made here: gradients and the optimizer's state have their places."""
        self._records: list[Tensor] = []
        self._alive = torch.ones((), dtype=torch.bool, device=device)

    def begin(self, *, lr: float | None, coefficients: Coefficients) -> None:
        """Start the optimizer steps of one update.

        Args:
            lr: As its schedule says; None leaves the optimizer's own, which may be set by hand.
            coefficients: Of the loss, as their schedules say.
        """
        if lr is None:
            self.options.keep()
        else:
            self.options.schedule(self.lr_scale * lr)
        self.coefficients = Coefficients(
            *(
                place.fill_(value) if isinstance(place, Tensor) else value
                for place, value in zip(self.coefficients, coefficients, strict=True)
            )
        )
        self.updates += 1
        self.warm = bool(self._records)
        self._records.clear()
        self._alive.fill_(True)

    def scale_lr(self, scale: float) -> None:
        """Multiply all learning rates to come, by so much compared with those that were given."""
        self.options.multiply(scale / self.lr_scale)
        self.lr_scale = scale

    @property
    def cancelled(self) -> bool:
        """Whether the remaining steps are known to do nothing; on a GPU nobody waits to find out."""
        return not self._reads_wait and not bool(self._alive)

    def take(self, record: Tensor) -> None:
        """Note the record of an optimizer step, [11], for the update's summary."""
        self._records.append(record)

    def take_made(self, records: Tensor) -> None:
        """Note the records [n, 11] of optimizer steps that have been made without `apply`."""
        self._records += records
        self._alive.fill_(bool(records[-1, StepRecord._fields.index("made")]))

    def step(self, sequences: Sequences, index: slice | Tensor) -> Tensor:
        """Make one optimizer step from the sequences with these numbers; return its record, [11]."""
        return self.finish(self.gradient(sequences, index), sequences, index)

    def gradient(self, sequences: Sequences, index: slice | Tensor) -> Tensor:
        """Put the gradient of the loss of some sequences into the parameters; return the losses, [6]."""
        return self.backend.gradient(sequences, index, self.coefficients)

    def finish(self, losses: Tensor, sequences: Sequences, index: slice | Tensor) -> Tensor:
        """Make the optimizer step of what `gradient` has left and returned; return its record, [11]."""
        if self.ranks.many:
            flat = self.backend.flat_gradient
            gradients = [each.grad for each in self.parameters if each.grad is not None]
            self.ranks.average([*(gradients if flat is None else [flat]), losses], sequences.counting(index))
        return self.apply(losses)

    def follow(self, backend: Backend) -> None:
        """Update from now on what these passes train; what was trained before keeps the optimizer's state.

        Frozen parameters stay with the optimizer, without a gradient: it leaves them alone.
        """
        self.backend, backend.scaler = backend, self.scaler
        present = {id(parameter) for parameter in backend.policy.parameters()}
        groups = self.optimizer.param_groups
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in present]
        add_parameters(self.optimizer, self._named_parameters())
        for parameter in [parameter for parameter in self.optimizer.state if id(parameter) not in present]:
            del self.optimizer.state[parameter]
        for parameter in backend.policy.parameters():
            if not parameter.requires_grad:
                parameter.grad = None
        self.parameters = self._held()
        lay_out(self.optimizer)

    def tensors(self) -> list[Tensor]:
        """Return all that an optimizer step changes."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        gradients = [parameter.grad for parameter in self.parameters]
        every = [*self.parameters, *gradients, *states, self._alive, *self.options.changed()]
        return [value for value in every if isinstance(value, Tensor)]

    @torch.no_grad()
    def apply(self, losses: Tensor) -> Tensor:
        """Make the pending optimizer step unless something speaks against it; return its record, [11]."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        grad_norm = self._clip()
        total, *_, kl_div, _ = losses.unbind()
        loss_ok, grad_ok = total.isfinite(), grad_norm.isfinite()
        sound = loss_ok
        if self.hparams.target_kl_div is not None:
            sound = loss_ok & (kl_div <= 1.5 * self.hparams.target_kl_div)
        tried = self._alive.clone()
        if self.hparams.adaptive_lr is not None:
            self.options.adapt(kl_div, tried & loss_ok, self.hparams.adaptive_lr)
        go = tried & sound & grad_ok
        if self.gated:
            self.optimizer.found_inf = (~go).to(torch.float32)  # type: ignore[attr-defined]
            self.optimizer.step()
        elif go.item():
            self.optimizer.step()
        for head in self.backend.bounded:
            head.keep_in_bounds()
        if self.scaler is not None:
            self.scaler.update()
        # A step that the scaler skips is tried again with a smaller scale; the rest of the update goes on.
        self._alive.copy_(tried & sound if self.scaler is not None else go)
        flags = torch.stack((tried, loss_ok, grad_ok, go)).to(losses.dtype)
        return torch.cat((losses, grad_norm.to(losses.dtype).view(1), flags))

    def _clip(self) -> Tensor:
        """Scale the gradient down to the largest norm that is allowed; return its norm before, []."""
        most, flat = self.hparams.max_grad_norm, self.backend.flat_gradient
        if flat is not None:
            norm = torch.linalg.vector_norm(flat)
            if most is not None:
                flat.mul_((most / (norm + 1e-6)).clamp_max_(1.0))
            return norm
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if most is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, most, norm)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return what the next update needs of those before it."""
        named = self._named_parameters()
        names = {id(parameter): name for name, parameter in named.items()}
        return {
            "parameters": [names[id(parameter)] for parameter in self.parameters],
            "frozen": [name for name, parameter in named.items() if not parameter.requires_grad],
            "optimizer": self.optimizer.state_dict(),
            "given": self.options.given,
            "scaler": self.scaler and self.scaler.state_dict(),
            "updates": self.updates,
            "skipped_steps": self.skipped_steps,
            "lr_scale": self.lr_scale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; options of the optimizer that were given anew stay.

        Raises:
            ValueError: If the optimizer is another one.
        """
        optimizer = self._load_parameters(state)
        self.lr_scale = state.get("lr_scale", 1.0)
        self.options.load(optimizer, state.get("given"), self.lr_scale)
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.updates, self.skipped_steps = state["updates"], state["skipped_steps"]
        self._records.clear()

    def _named_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the policy's parameters, by the names that they have where nothing is compiled."""
        return {plain_name(name): value for name, value in self.backend.policy.named_parameters()}

    def _held(self) -> list[torch.nn.Parameter]:
        """Return the optimizer's parameters, in its order."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _load_parameters(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Freeze what was frozen, give the optimizer its parameters back, and return its state for them."""
        named = self._named_parameters()
        # Until rlstack 0.1.0, what was frozen when the algorithm was made was all that could be.
        trained = [name for name, parameter in named.items() if parameter.requires_grad]
        if "parameters" in state:
            trained, frozen = ([plain_name(name) for name in state[key]] for key in ("parameters", "frozen"))
            for name, parameter in named.items():
                parameter.requires_grad_(name not in frozen)
        optimizer = regroup(self.optimizer, state["optimizer"], trained, named)
        self.parameters = self._held()
        return optimizer

    def records(self) -> Tensor:
        """Return a `StepRecord` for each optimizer step of the update, on the device: [steps, 11]."""
        return torch.stack(self._records)

    def summary(self, others: Mapping[str, Tensor]) -> dict[str, float]:
        """Return mean losses and gradient norm of the steps that were tried, and other numbers, by name.

        All are read back at once.

        Args:
            others: Scalars; whatever else is to be read back.

        Raises:
            NonFiniteError: If a loss or a gradient was not finite; that step was not made, nor any after it.
        """
        lr = self.options.lr
        unread = {"lr": lr} if isinstance(lr, Tensor) else {}
        read = read_back({"records": self.records(), **others, **unread})
        steps = [StepRecord(*row) for row in read.pop("records")]
        return {"lr": lr, **self._summarize(steps), **read}

    def _summarize(self, records: list[StepRecord]) -> dict[str, float]:
        tried = [record for record in records if record.tried]
        for number, record in enumerate(tried):
            self.skipped_steps = 0 if record.grad_ok else self.skipped_steps + 1
            fatal = self.scaler is None or self.skipped_steps > _MAX_SKIPPED_STEPS
            what = "the loss" if not record.loss_ok else "the gradient"
            if not record.loss_ok or (not record.grad_ok and fatal):
                raise NonFiniteError(
                    f"{what} is NaN or infinite in optimizer step {number} of update {self.updates}; the "
                    "parameters are as they were before it: lower the learning rate, bound rewards that are "
                    "huge, or look for a division by zero in the model"
                )
        sound = [record for record in tried if record.grad_ok] or tried
        names = (*PPOLoss._fields, "grad_norm")
        return {name: sum(getattr(record, name) for record in sound) / len(sound) for name in names}
