"""What a head's output says of actions, and the way back: log-probability, entropy and their derivatives."""

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor

from .. import distributions, specs
from .base import Kernel


class Output(ABC):
    """Rates actions by what a kernel's head puts out, and sends derivatives back to it.

    Args:
        kernel: Whose head it is.
        distribution_cls: The action distribution.
    """

    def __init__(self, kernel: Kernel, distribution_cls: type[distributions.Distribution]) -> None:
        self.kernel, self.distribution_cls = kernel, distribution_cls
        self.head: Any = kernel.head
        self.draws = distribution_cls is distributions.SquashedNormal
        """Whether rating draws random numbers, so that it must happen in order, on one thread."""

    @abstractmethod
    def rate(self, output: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy [N, 1] of actions [N, *A] under the head's output [N, k]."""

    @abstractmethod
    def backward(self, d_logp: Tensor, d_entropy: float) -> Tensor:
        """Return the derivative by the output that was rated last, [N, k]; changes `d_logp`.

        Args:
            d_logp: [N, 1]. Minus the derivative with respect to the log-probability.
            d_entropy: Derivative with respect to each row's entropy.
        """


@final
class CategoricalOutput(Output):
    """Of `Categorical`, for one action of n choices.

    Rows lie along the last dimension, [n, N]: operations over the choices are fast on few of them that way.
    """

    def __init__(self, kernel: Kernel, distribution_cls: type[distributions.Distribution]) -> None:
        """Return the derivative by the output, [N, k]."""
        super().__init__(kernel, distribution_cls)
        self._minus_one = -torch.ones((1, 1), dtype=self.head.linear.weight.dtype)

    def rate(self, output: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy, [N, 1] each."""
        self._logps = output.t().contiguous().log_softmax(0)
        self._choices = actions.t().long()
        self._p = self._logps.exp()
        self._entropy = (self._p * self._logps).sum(0, keepdim=True).neg_()
        return self._logps.gather(0, self._choices).t(), self._entropy.t()

    def backward(self, d_logp: Tensor, d_entropy: float) -> Tensor:
        """∂ log pₐ / ∂ z = 1ₐ − p;  ∂ H / ∂ z = −p (log p + H)."""
        bonus = -d_entropy * self._p * (self._logps + self._entropy) if d_entropy else None
        minus_one = self._minus_one.expand_as(self._choices)
        d_output = self._p.scatter_add_(0, self._choices, minus_one).mul_(d_logp.t())
        return (d_output if bonus is None else d_output.add_(bonus)).t()


@final
class NormalOutput(Output):
    """Of `Normal`."""

    def rate(self, output: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivative by the output, [N, k]."""
        log_std = self.head.log_std.detach().flatten()
        self._inverse_std = torch.exp(-log_std)
        self._z = (actions.flatten(1) - output).mul_(self._inverse_std)
        logp = _sum_rows(torch.addcmul(-log_std - distributions.HALF_LOG_2PI, self._z, self._z, value=-0.5))
        return logp, (log_std + (0.5 + distributions.HALF_LOG_2PI)).sum().expand_as(logp)

    def backward(self, d_logp: Tensor, d_entropy: float) -> Tensor:
        """∂ log p / ∂ mean = z / std;  ∂ log p / ∂ log std = z² − 1;  ∂ H / ∂ log std = 1."""
        weighted = self._z * d_logp
        d_log_std = len(d_logp) * d_entropy + d_logp.sum() - (weighted * self._z).sum(0)
        self.kernel.gradients[self.head.log_std].add_(d_log_std.view_as(self.head.log_std))
        return weighted.mul_(-self._inverse_std)


@final
class AutogradOutput(Output):
    """Of any distribution, by autograd."""

    @torch.enable_grad()
    def rate(self, output: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivative by the output, [N, k]."""
        self._output = output.detach().requires_grad_()
        distribution = self.distribution_cls(self.head.features(self._output), self.kernel.model)
        self._logp, self._entropy = distribution.logp(actions), distribution.entropy()
        return self._logp.detach(), self._entropy.detach()

    def backward(self, d_logp: Tensor, d_entropy: float) -> Tensor:
        """Return log-probability and entropy, [N, 1] each."""
        parameters = list(self.head.parameters(recurse=False))
        d_output, *rest = torch.autograd.grad(
            (self._logp, self._entropy),
            (self._output, *parameters),
            (-d_logp, torch.full_like(self._entropy, d_entropy)),
        )
        for parameter, gradient in zip(parameters, rest, strict=True):
            self.kernel.gradients[parameter].add_(gradient)
        return d_output


def make_output(kernel: Kernel, distribution_cls: type[distributions.Distribution]) -> Output:
    """Return what rates actions for a kernel's head."""
    discrete = specs.kind(kernel.model.action_spec) is specs.Categorical
    if distribution_cls is distributions.Categorical and discrete and kernel.head.shape[:-1] == (1,):
        return CategoricalOutput(kernel, distribution_cls)
    if distribution_cls is distributions.Normal:
        return NormalOutput(kernel, distribution_cls)
    return AutogradOutput(kernel, distribution_cls)


def _sum_rows(values: Tensor) -> Tensor:
    """Return values [N, ...] summed over all but the rows: [N, 1]."""
    rows = values.flatten(1)
    return rows if rows.shape[1] == 1 else rows.sum(1, keepdim=True)
