"""All optimizer steps of an SGD iteration in one call, where minibatches are small.

With few rows, the arithmetic of an optimizer step takes less time than Python takes to ask for it. Here one
TorchScript function gathers, rates, differentiates, clips, decides and applies Adam, minibatch after
minibatch. What it does is what `ppo_loss` and `Learner.apply` do, which stay the reference.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .heads import categorical_gradient, normal_gradient
from .loss_gradients import value_gradient


class SmallNet(NamedTuple):
    """Linear layers with an activation between each two, and where their gradients go."""

    weights: list[Tensor]
    transposed: list[Tensor]
    biases: list[Tensor]
    """That of the last layer is a column."""
    buffers: list[Tensor]
    """For the output of each hidden layer."""
    d_weights: list[Tensor]
    d_biases: list[Tensor]
    relu: bool
    """Whether activations are ReLU; else they are tanh."""
    minus_one: Tensor


class Std(NamedTuple):
    """Of normal actions."""

    log_std: Tensor
    """[k, 1]. The parameter."""
    gradient: Tensor
    """[k]. Where its gradient goes."""


class Rows(NamedTuple):
    """What the optimizer steps learn from; R rows, in the order in which they are taken."""

    policy: Tensor
    """[R, size]. Encoded observations."""
    value: Tensor
    """[R, size]. The same, as the values are made from them."""
    drawn: Tensor
    """[k, R]. What was drawn: choices, or numbers."""
    targets: Tensor
    """[7, R]. Old log-probabilities, advantages by the rows of a minibatch, their cap and floor, returns, and
    the lowest and highest error; as of `Targets`."""
    allowed: Tensor | None
    """[R, k]. Which choices are allowed; None if all are."""

    def take(self, order: Tensor) -> "Rows":
        """Return the rows with these numbers."""
        policy = self.policy.index_select(0, order)
        return Rows(
            policy,
            policy if self.value is self.policy else self.value.index_select(0, order),
            self.drawn.index_select(1, order),
            self.targets.index_select(1, order),
            None if self.allowed is None else self.allowed.index_select(0, order),
        )


class Loss(NamedTuple):
    """What the loss is, and what stops an update."""

    clip_param: float
    dual_clip: bool
    vf_clip: bool
    vf_coeff: float
    entropy_coeff: float
    squash: bool
    largest_kl_div: float
    """Infinite if there is no limit."""
    max_grad_norm: float
    """Infinite if there is no limit."""
    largest_log_ratio: float
    """Whose ratio is finite."""


class Group(NamedTuple):
    """Parameters with the same options of Adam, and their moments."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    most: list[Tensor]
    """Of `amsgrad`."""
    numbers: list[float]
    """lr, beta1, beta2, weight_decay, eps."""
    amsgrad: bool
    maximize: bool
    decoupled: bool


class AdamSteps(NamedTuple):
    """What makes optimizer steps."""

    groups: list[Group]
    gradient: Tensor
    """All gradients, in one piece."""
    steps: Tensor
    """[]. How many steps have been made; it goes on counting."""


def iterate(
    rows: Rows, size: int, policy: SmallNet, value: SmallNet, std: Std | None, adam: AdamSteps, loss: Loss
) -> list[float]:
    """Make an optimizer step from each `size` rows, until one can't be made; return a `StepRecord` for each.

    Args:
        rows: What to learn from.
        size: Of a minibatch.
        policy: The network whose output is the head's.
        value: The network of the values.
        std: Of actions, if they are normal.
        adam: What makes the steps.
        loss: The loss.
    """
    records: list[float] = []
    for start in range(0, rows.targets.size(1), size):
        targets = rows.targets[:, start : start + size].split(1)
        logp, entropy = rate_policy(rows, targets, start, size, policy, std, loss)
        values = rate_values(rows, targets, start, size, value, loss)
        records.extend(conclude(targets, size, logp, entropy, values, adam, loss))
        if records[-1] == 0.0:
            break
    return records


def rate_policy(
    rows: Rows, targets: list[Tensor], start: int, size: int, net: SmallNet, std: Std | None, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Write the policy's gradient for `size` rows; return log-probabilities and entropies, [1, size]."""
    stop = start + size
    old_logp, advantages, caps, floors = targets[0], targets[1], targets[2], targets[3]
    drawn, d_entropy = rows.drawn[:, start:stop], -loss.entropy_coeff / size
    vectors = rows.policy[start:stop]
    output = forward(vectors, net)
    floors_or_none = floors if loss.dual_clip else None
    if std is not None:
        std.gradient.zero_()
        logp, entropy, d_output = normal_gradient(
            output,
            std.log_std,
            std.gradient,
            drawn,
            old_logp,
            advantages,
            caps,
            floors_or_none,
            d_entropy,
            loss.squash,
        )
    else:
        allowed = rows.allowed
        if allowed is not None:
            allowed = allowed[start:stop].t()
        logp, entropy, d_output = categorical_gradient(
            output, drawn, old_logp, advantages, caps, floors_or_none, d_entropy, allowed
        )
    backward(d_output, vectors, net)
    return logp, entropy


def rate_values(
    rows: Rows, targets: list[Tensor], start: int, size: int, net: SmallNet, loss: Loss
) -> Tensor:
    """Write the values' gradient for `size` rows; return them, [1, size]."""
    lowest, highest = (targets[5], targets[6]) if loss.vf_clip else (None, None)
    vectors = rows.value[start : start + size]
    values = forward(vectors, net)
    d_values = value_gradient(values, targets[4], lowest, highest).mul_(loss.vf_coeff / size)
    backward(d_values, vectors, net)
    return values


def conclude(
    targets: list[Tensor],
    size: int,
    logp: Tensor,
    entropy: Tensor,
    values: Tensor,
    adam: AdamSteps,
    loss: Loss,
) -> list[float]:
    """Make the step from `size` rows whose gradient is written, if it can be; return its `StepRecord`."""
    log_ratio = logp - targets[0]
    ratio = log_ratio.exp()
    surrogate = clipped_surrogate(ratio, targets, loss)
    errors = values - targets[4]
    squares = errors.square()
    if loss.vf_clip:
        squares = torch.maximum(squares, errors.clamp_(targets[5], targets[6]).square_())
    outside = (ratio - 1).abs_().gt(loss.clip_param).to(ratio.dtype)
    sums = torch.cat([surrogate, squares, entropy, log_ratio.expm1().sub_(log_ratio), outside]).sum(1)
    said: list[float] = torch.cat([sums, torch.norm(adam.gradient).unsqueeze(0)]).double().tolist()
    if not math.isfinite(said[0]):
        # No infinity where the loss is sure to clip it.
        bounds = torch.full_like(logp, loss.largest_log_ratio)
        if not loss.dual_clip:
            bounds.masked_fill_(targets[1] < 0, math.inf)
        said[0] = float(clipped_surrogate(torch.minimum(log_ratio, bounds).exp(), targets, loss).sum())
    policy_loss, vf_loss, entropies = -said[0], 0.5 * said[1] / size, said[2] / size
    kl_div, norm = said[3] / size, said[5]
    total = policy_loss + loss.vf_coeff * vf_loss - loss.entropy_coeff * entropies
    loss_ok, grad_ok = math.isfinite(total), math.isfinite(norm)
    made = loss_ok and grad_ok and kl_div <= loss.largest_kl_div
    if made:
        if norm + 1e-6 > loss.max_grad_norm:
            adam.gradient.mul_(loss.max_grad_norm / (norm + 1e-6))
        adam.steps.add_(1)
        for group in adam.groups:
            adam_step(group, adam.steps)
    record = [total, policy_loss, vf_loss, entropies, kl_div, said[4] / size, norm, 1.0]
    record.extend([float(loss_ok), float(grad_ok), float(made)])
    return record


def clipped_surrogate(ratio: Tensor, targets: list[Tensor], loss: Loss) -> Tensor:
    """Return the surrogate of each row, by the rows of the minibatch, as `policy_loss` clips it."""
    surrogate = torch.minimum(ratio * targets[1], targets[2])
    return torch.maximum(surrogate, targets[3]) if loss.dual_clip else surrogate


def forward(rows: Tensor, net: SmallNet) -> Tensor:
    """Return the output of the last layer [k, N], and leave those of the others in the buffers."""
    last = len(net.weights) - 1
    for i in range(last):
        out = net.buffers[i]
        if net.relu:
            torch.addmm(net.biases[i], rows, net.transposed[i], out=out).relu_()
        else:
            # tanh z = 2 σ(2z) − 1: torch's σ is several times as fast as its tanh.
            torch.addmm(net.biases[i], rows, net.transposed[i], beta=2.0, alpha=2.0, out=out).sigmoid_()
            torch.add(net.minus_one, out, alpha=2, out=out)
        rows = out
    return torch.addmm(net.biases[last], net.weights[last], rows.t())


def backward(d_columns: Tensor, rows: Tensor, net: SmallNet) -> None:
    """Write the gradients, given the derivative by the last output [k, N] and the buffers of `forward`."""
    last = len(net.weights) - 1
    for i in range(last, -1, -1):
        inputs = net.buffers[i - 1] if i > 0 else rows
        torch.mm(d_columns, inputs, out=net.d_weights[i])
        torch.sum(d_columns, [1], out=net.d_biases[i])
        if i > 0:
            out = torch.mm(d_columns.t(), net.weights[i])
            if net.relu:
                torch.ops.aten.threshold_backward(out, inputs, 0, grad_input=out)
            else:
                torch.ops.aten.tanh_backward(out, inputs, grad_input=out)
            d_columns = out.t()


def adam_step(group: Group, steps: Tensor) -> None:
    """Make a step of Adam, which is the `steps`-th."""
    lr, beta1, beta2, weight_decay, eps = group.numbers
    counts = [steps] * len(group.parameters)
    if group.decoupled:
        torch._fused_adamw_(
            group.parameters,
            group.gradients,
            group.means,
            group.squares,
            group.most,
            counts,
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=weight_decay,
            eps=eps,
            amsgrad=group.amsgrad,
            maximize=group.maximize,
        )
    else:
        torch._fused_adam_(
            group.parameters,
            group.gradients,
            group.means,
            group.squares,
            group.most,
            counts,
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=weight_decay,
            eps=eps,
            amsgrad=group.amsgrad,
            maximize=group.maximize,
        )
