"""The default models' forward and backward passes, written out, on buffers that are used again and again.

On a CPU most of what autograd costs beside the matrix products is memory: fresh activations for each block of
rows, and passes over them. A kernel computes the same numbers, up to rounding, without either. It belongs to
one thread at a time; the parameters are the model's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

_NARROW = 2
"""Up to so many columns, products with a vector at a time are faster than one with a matrix."""
_SMALL = 32
"""Up to so many columns, a matrix product goes by the wide matrix."""


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
        """Where `descend` adds the gradient, by parameter."""

    @abstractmethod
    def prepare(self) -> None:
        """Take in the parameters; called after each change and before the next pass."""

    @abstractmethod
    def forward(self, vectors: Tensor, state: TensorDict | None) -> tuple[Tensor, Tensor]:
        """Return what the head's linear layer puts out, [N · L, k], and the values [N · L, 1].

        Args:
            vectors: [N, L, size]. Encoded observations.
            state: [N, ...]. Recurrent state before the first step; None if feedforward.
        """

    @abstractmethod
    def state(self) -> TensorDict | None:
        """Return the recurrent state after the last forward pass, [N, ...]; None if feedforward."""

    @abstractmethod
    def descend(
        self,
        vectors: Tensor,
        state: TensorDict | None,
        output_gradient: Callable[[Tensor], Tensor],
        value_gradient: Callable[[Tensor], Tensor],
    ) -> None:
        """Run forward and backward and add the gradient.

        Args:
            vectors: As of `forward`.
            state: As of `forward`.
            output_gradient: Takes the head's output [N · L, k], returns the loss's derivative by it.
            value_gradient: Takes the values [N · L, 1], returns the loss's derivative by them.
        """


def views(flat: Tensor, parameters: list[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """Return parts of a flat tensor, in the order and in the shapes of parameters."""
    parts = flat.split([parameter.numel() for parameter in parameters])
    return {p: part.view_as(p) for p, part in zip(parameters, parts, strict=True)}


class Linear:
    """A linear layer, forward and backward, in the shapes that are fast on a CPU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear, kernel: Kernel) -> None:
        self._layer: Any = layer
        self._kernel = kernel
        self._one_input, self._few_outputs = layer.in_features == 1, layer.out_features <= _NARROW
        self._widens = layer.in_features <= _NARROW < layer.out_features
        self._places = (0, 0)
        self._ones = torch.ones((kernel.rows, 1), dtype=kernel.dtype)

    def prepare(self) -> None:
        """Take in the parameters; those that are used as they are change by themselves."""
        layer, dtype = self._layer, self._kernel.dtype
        places = (layer.weight.data_ptr(), layer.bias.data_ptr())
        if places == self._places and layer.weight.dtype == dtype:
            return
        self._places = places
        self.weight, self.bias = layer.weight.detach().to(dtype), layer.bias.detach().to(dtype)
        self._transposed = self.weight.t()
        self._weight_rows = self.weight.unbind() if self._few_outputs else ()

    def forward(self, rows: Tensor, out: Tensor) -> Tensor:
        """Write the output [N, k] for input [N, size], and return it."""
        if self._one_input:
            return torch.addcmul(self.bias, rows, self._transposed, out=out)
        return torch.addmm(self.bias, rows, self._transposed, out=out)

    def output(self, rows: Tensor) -> Tensor:
        """Return the output [N, k] for input [N, size]."""
        return torch.addmm(self.bias, rows, self._transposed)

    def spread(self, d_rows: Tensor, out: Tensor) -> None:
        """Write the derivative by the input [N, size], given that by the output [N, k]."""
        if self._few_outputs:
            first, *others = d_rows.split(1, 1)
            torch.mul(first, self._weight_rows[0], out=out)
            for column, row in zip(others, self._weight_rows[1:], strict=True):
                out.addcmul_(column, row)
        else:
            torch.mm(d_rows, self.weight, out=out)

    def add_gradient(self, d_rows: Tensor, rows: Tensor) -> None:
        """Add the parameters' gradient, given the derivative by the output [N, k] and the input [N, size]."""
        gradients = self._kernel.gradients
        weight, bias = gradients[self._layer.weight], gradients[self._layer.bias]
        if self._widens:
            # The wide matrix is read once for both, and the product is fast this way round.
            both = torch.mm(torch.cat((rows, self._ones[: len(rows)]), 1).t(), d_rows)
            weight.add_(both[:-1].t())
            bias.add_(both[-1])
        else:
            add_product(weight, d_rows, rows)
            bias.add_(d_rows.sum(0))


def add_product(gradient: Tensor, d_rows: Tensor, rows: Tensor) -> None:
    """Add d_rowsᵀ [k, N] times rows [N, size] to a weight's gradient [k, size]."""
    if gradient.dtype != rows.dtype:
        gradient.add_(torch.mm(d_rows.t(), rows))
    elif rows.shape[1] < d_rows.shape[1] and rows.shape[1] <= _SMALL:
        # The product of a wide matrix with a narrow one is slow this way round, and fast the other.
        gradient.add_(torch.mm(rows.t(), d_rows).t())
    else:
        gradient.addmm_(d_rows.t(), rows)
