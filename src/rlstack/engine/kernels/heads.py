"""What a head's output says of actions, and the way back: log-probability, entropy and their derivatives."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from ... import distributions, specs
from ...distributions import log_slope, slope_mixture
from ...models.masks import mask_logits
from .base import Kernel, script
from .loss_gradients import policy_gradient


class Targets(NamedTuple):
    """What the gradient of one block needs beside the observations; tensors are [1, N · L]."""

    drawn: Any
    """As of `Output.blocks`."""
    old_logp: Tensor
    advantages: Tensor
    """Â divided by the number of rows of the minibatch."""
    caps: Tensor
    floors: Tensor | None
    """As of `surrogate_bounds`."""
    returns: Tensor
    lowest: Tensor | None
    highest: Tensor | None
    """As of `error_bounds`."""
    weights: Tensor | None
    """How much a row counts; None if all count the same."""
    value_weight: float
    """What the derivative by a value is multiplied by."""
    allowed: Tensor | None = None
    """[N · L, ...]. Which choices are allowed; None if all are."""


class Output(ABC):
    """Rates actions by what a kernel's head puts out, and sends derivatives back to it.

    Args:
        kernel: Whose head it is.
        distribution_cls: The action distribution.
    """

    def __init__(self, kernel: Kernel, distribution_cls: type[distributions.Distribution]) -> None:
        self.kernel, self.distribution_cls = kernel, distribution_cls
        self.head: Any = kernel.head

    def blocks(self, drawn: Any, rows: int) -> Sequence[Any]:
        """Return what was drawn [N, *A] in blocks of so many rows, each as `gradient` takes it."""
        return drawn.split(rows)

    @abstractmethod
    def gradient(self, output: Tensor, targets: Targets, d_entropy: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probability and entropy [1, N], and the loss's derivative by the output, [k, N].

        Args:
            output: [k, N]. What the head's linear layer puts out.
            targets: Of these rows.
            d_entropy: The loss's derivative by each row's entropy.
        """


@final
class CategoricalOutput(Output):
    """Of `Categorical`, for one action of n choices."""

    def blocks(self, drawn: Any, rows: int) -> Sequence[Any]:
        """Return the choices, [1, N] each."""
        return drawn.t().long().split(rows, 1)

    def gradient(self, output: Tensor, targets: Targets, d_entropy: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probability, entropy and the derivative by the logits."""
        t = targets
        allowed = None if t.allowed is None else t.allowed.flatten(1).t()
        found: tuple[Tensor, Tensor, Tensor] = script(categorical_gradient)(
            output, t.drawn, t.old_logp, t.advantages, t.caps, t.floors, d_entropy, allowed
        )
        return found


def categorical_gradient(
    logits: Tensor,
    choices: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    caps: Tensor,
    floors: Tensor | None,
    d_entropy: float,
    allowed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """∂ log pₐ / ∂ z = 1ₐ − p;  ∂ H / ∂ z = −p (log p + H)."""
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    logps = logits.log_softmax(0)
    p = logps.exp()
    if allowed is not None:
        # Finite, so that 0 times it is 0.
        logps = logps.clamp_min(-1e30)
    entropy = (p * logps).sum(0, keepdim=True).neg_()
    logp = logps.gather(0, choices)
    d_logp = policy_gradient(logp, old_logp, advantages, caps, floors)
    if d_entropy != 0.0:
        bonus = p * (logps + entropy) * -d_entropy
        return logp, entropy, p.mul_(d_logp).scatter_add_(0, choices, d_logp.neg()).add_(bonus)
    return logp, entropy, p.mul_(d_logp).scatter_add_(0, choices, d_logp.neg())


@final
class NormalOutput(Output):
    """Of `Normal` and `SquashedNormal`."""

    def blocks(self, drawn: Any, rows: int) -> Sequence[Any]:
        """Return what was drawn, [k, N] each."""
        return drawn.flatten(1).t().contiguous().split(rows, 1)

    def gradient(self, output: Tensor, targets: Targets, d_entropy: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probability, entropy and the derivative by the means; adds that by log std."""
        t, log_std = targets, self.head.bounded_log_std().detach()
        whole = self.kernel.gradients[self.head.log_std].view(-1)
        gradient = torch.zeros_like(whole) if self.head.is_bounded else whole
        found: tuple[Tensor, Tensor, Tensor] = script(normal_gradient)(
            output,
            log_std.view(-1, 1),
            gradient,
            t.drawn,
            t.old_logp,
            t.advantages,
            t.caps,
            t.floors,
            d_entropy,
            self.distribution_cls is distributions.SquashedNormal,
        )
        if self.head.is_bounded:
            whole.add_(gradient.masked_fill_((log_std != self.head.log_std.detach()).view(-1), 0.0))
        return found


def normal_gradient(
    means: Tensor,
    log_std: Tensor,
    gradient: Tensor,
    drawn: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    caps: Tensor,
    floors: Tensor | None,
    d_entropy: float,
    squash: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """∂ log p / ∂ mean = z / std;  ∂ log p / ∂ log std = z² − 1;  ∂ H / ∂ log std = 1, of the normal part."""
    half_log_2pi = 0.5 * math.log(2 * math.pi)
    inverse_std = torch.exp(-log_std)
    z = (drawn - means).mul_(inverse_std)
    logps = torch.addcmul(-log_std - half_log_2pi, z, z, value=-0.5)
    if squash:
        logps.sub_(log_slope(drawn))
    logp = logps.sum(0, keepdim=True)
    entropy = (log_std + (0.5 + half_log_2pi)).sum().expand_as(logp)
    d_logp = policy_gradient(logp, old_logp, advantages, caps, floors)
    weighted = z * d_logp
    gradient.add_(logp.numel() * d_entropy + d_logp.sum() - (weighted * z).sum(1))
    d_means = weighted.mul_(-inverse_std)
    if squash:
        slope, by_mean, by_log_std = slope_gradient(means, log_std.exp(), d_entropy != 0.0)
        entropy = entropy + slope
        if d_entropy != 0.0:
            d_means.add_(by_mean, alpha=d_entropy)
            gradient.add_(by_log_std, alpha=d_entropy)
    return logp, entropy, d_means


def slope_gradient(means: Tensor, std: Tensor, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return `expected_log_slope` summed over actions [1, N], and its derivatives if they are wanted.

    d = E|N(m, t)|, t² = std² + s²
    ∂d / ∂m = erf(m / √2 t);   ∂d / ∂ log std = std² / t · √(2/π) exp(−m² / 2t²)

    Args:
        means: [k, N].
        std: [k, 1].
        wanted: Whether derivatives are wanted; else they are empty.

    Returns:
        The sum, its derivative by the means [k, N], and by log std, summed over rows [k].
    """
    weights, scales = slope_mixture()
    total = torch.full_like(means[:1], 2.0 * math.log(2.0) * means.size(0))
    by_mean = torch.zeros_like(means) if wanted else means[:0]
    by_log_std = torch.zeros_like(std[:, 0])
    for i in range(len(weights)):
        spread = (std.square() + scales[i] * scales[i]).sqrt_()
        ratio = means * (math.sqrt(0.5) / spread)
        erf = ratio.erf()
        density = ratio.square_().neg_().exp_().mul_(math.sqrt(2.0 / math.pi))
        total.sub_(torch.addcmul(density * spread, means, erf).sum(0, keepdim=True), alpha=2.0 * weights[i])
        if wanted:
            by_mean.sub_(erf, alpha=2.0 * weights[i])
            share = std.square() / spread
            by_log_std.sub_(share.squeeze(1) * density.sum(1), alpha=2.0 * weights[i])
    return total, by_mean, by_log_std


@final
class AutogradOutput(Output):
    """Of any distribution, by autograd."""

    def gradient(self, output: Tensor, targets: Targets, d_entropy: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probability, entropy and the derivative by the output."""
        t = targets
        with torch.enable_grad():
            output = output.detach().t().requires_grad_()
            features = self.head.features(output)
            if t.allowed is not None:
                features = mask_logits(features, t.allowed)
            distribution = self.distribution_cls(features, self.kernel.model)
            logp, entropy = distribution.logp(t.drawn), distribution.entropy()
        d_logp = policy_gradient(logp.detach().t(), t.old_logp, t.advantages, t.caps, t.floors)
        parameters = list(self.head.parameters(recurse=False))
        d_entropies = torch.full_like(entropy, d_entropy)
        if t.weights is not None:
            d_entropies *= t.weights.t()
        d_output, *rest = torch.autograd.grad(
            (logp, entropy), (output, *parameters), (-d_logp.t(), d_entropies)
        )
        for parameter, gradient in zip(parameters, rest, strict=True):
            self.kernel.gradients[parameter].add_(gradient)
        return logp.detach().t(), entropy.detach().t(), d_output.t()


def make_output(kernel: Kernel, distribution_cls: type[distributions.Distribution]) -> Output:
    """Return what rates actions for a kernel's head."""
    discrete = specs.kind(kernel.model.action_spec) is specs.Categorical
    if distribution_cls is distributions.Categorical and discrete and kernel.head.shape[:-1] == (1,):
        return CategoricalOutput(kernel, distribution_cls)
    if distribution_cls in (distributions.Normal, distributions.SquashedNormal):
        return NormalOutput(kernel, distribution_cls)
    return AutogradOutput(kernel, distribution_cls)
