"""The default models' forward and backward passes, written out, on buffers that are used again and again.

On a CPU most of what autograd costs beside the matrix products is memory: fresh activations for each block of
rows, and passes over them. A kernel computes the same numbers, up to rounding, without either. It belongs to
one thread at a time; the parameters are the model's own.
"""

import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn


class Kernel(ABC):
    """Runs one model forward and backward on at most `rows` rows at a time.

    Args:
        model: One for which there is a `kernel_class`.
        rows: The most rows, N · L, of one call.
        dtype: Of activations and matrix products: the parameters' own, or bfloat16.
    """

    head: Any
    """The model's head; its linear layer's output is what `forward` returns."""

    def __init__(self, model: Any, rows: int, dtype: torch.dtype) -> None:
        self.model, self.rows, self.dtype = model, rows, dtype
        self.gradients: dict[nn.Parameter, Tensor] = {}
        """Where `forward_backward` adds the gradient, by parameter."""

    @abstractmethod
    def prepare(self) -> None:
        """Take in the parameters; called after each change and before the next pass."""

    @abstractmethod
    def forward(self, vectors: Sequence[Tensor], state: TensorDict | None) -> tuple[Tensor, Tensor]:
        """Return what the head's linear layer puts out, [k, N · L], and the values [1, N · L].

        Rows lie along the last dimension: operations on few outputs are fast that way.

        Args:
            vectors: [N, L, size]. Encoded observations: as the policy and as the values need them, or one for
                both.
            state: [N, ...]. Recurrent state before the first step; None if feedforward.
        """

    @abstractmethod
    def state(self) -> TensorDict | None:
        """Return the recurrent state after the last forward pass, [N, ...]; None if feedforward."""

    @abstractmethod
    def forward_backward(
        self,
        vectors: Sequence[Tensor],
        state: TensorDict | None,
        output_gradient: Callable[[Tensor], Tensor],
        value_gradient: Callable[[Tensor], Tensor],
        ended: Tensor | None = None,
    ) -> None:
        """Run forward and backward and add the gradient.

        Args:
            vectors: As of `forward`.
            state: As of `forward`.
            output_gradient: Takes the head's output [k, N · L], returns the loss's derivative by it.
            value_gradient: Takes the values [1, N · L], returns the loss's derivative by them.
            ended: [N, L - 1], bool. Whether the state begins anew after a step; None if it never does.
        """


def views(flat: Tensor, parameters: list[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """Return parts of a flat tensor, in the order and in the shapes of parameters."""
    parts = flat.split([parameter.numel() for parameter in parameters])
    return {p: part.view_as(p) for p, part in zip(parameters, parts, strict=True)}


@cache
def script(function: Callable[..., Any]) -> Any:
    """Return a function of tensors as TorchScript, which runs it without Python's lock and in less time.

    It is deprecated, and from Python 3.14 on the function runs as it is: with the same results, slower where
    there are several threads or few rows.
    """
    if sys.version_info >= (3, 14):
        return function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(function)


def unoptimized() -> AbstractContextManager[None]:
    """Return a context in which TorchScript changes no operation: all calls give what the first one does."""
    return torch.jit.optimized_execution(False)  # type: ignore[attr-defined]


# The functions below are compiled as TorchScript by those that call them. Numbers in them are literals: it
# knows no globals.


def linear(rows: Tensor, weight: Tensor, bias: Tensor, scale: float, out: Tensor) -> Tensor:
    """Write the output of a linear layer [N, k], times `scale`, for input [N, size], and return it."""
    if rows.size(1) == 1:
        # A product of vectors: a matrix product is slow for one input.
        if scale != 1.0:
            bias = bias * scale
        return torch.addcmul(bias, rows, weight.t(), value=scale, out=out)
    return torch.addmm(bias, rows, weight.t(), beta=scale, alpha=scale, out=out)


def head_output(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the output [k, N] of a last layer for input [N, size]."""
    return torch.addmm(bias.unsqueeze(-1), weight, rows.t())


def spread(d_columns: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """Write the derivative by the input [N, size], given that by the output [k, N], and return it."""
    if weight.size(0) > 2:
        return torch.mm(d_columns.t(), weight, out=out)
    # For so few outputs, products of vectors are faster than one of matrices.
    torch.mul(d_columns[0].unsqueeze(-1), weight[0], out=out)
    for k in range(1, weight.size(0)):
        out.addcmul_(d_columns[k].unsqueeze(-1), weight[k])
    return out


def add_product(gradient: Tensor, d_columns: Tensor, rows: Tensor) -> None:
    """Add d_columns [k, N] times rows [N, size] to a weight's gradient [k, size]."""
    size = rows.size(1)
    if gradient.dtype != rows.dtype:
        gradient.add_(torch.mm(d_columns, rows))
    elif size == 1:
        gradient.squeeze(1).addmv_(d_columns, rows.squeeze(1))
    elif size <= 32 and size < gradient.size(0):
        # The product of a wide matrix with a narrow one is slow this way round, and fast the other.
        gradient.add_(torch.mm(rows.t(), d_columns.t()).t())
    else:
        gradient.addmm_(d_columns, rows)


def add_gradient(d_columns: Tensor, rows: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Add to the gradients of a layer's weight and bias.

    Args:
        d_columns: [k, N]. Derivative by the layer's output.
        rows: [N, size]. Its input.
        weight: Gradient of the weight, [k, size].
        bias: Gradient of the bias, [k].
    """
    add_product(weight, d_columns, rows)
    bias.add_(d_columns.sum(1))
