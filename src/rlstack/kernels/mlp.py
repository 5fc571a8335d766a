"""Multilayer perceptrons, written out."""

from collections.abc import Callable
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from ..specs import widen
from .base import Kernel, Linear

_relu_backward = torch.ops.aten.threshold_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
# oneDNN's linear layer with its activation in the same pass; its tanh is five times as fast as torch's.
_onednn_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


@final
class MLPKernel(Kernel):
    """Of the default feedforward models."""

    def __init__(self, model: Any, rows: int, dtype: torch.dtype) -> None:
        super().__init__(model, rows, dtype)
        self.head = model.policy[-1]
        relu = type(model.policy[1]) is nn.ReLU
        policy, value = (
            [layer for layer in net if isinstance(layer, nn.Linear)]
            for net in (model.policy[:-1], model.value)
        )
        # Both networks have the same hidden layers and take turns: what is in the cache is used again.
        hidden = model.config["hiddens"]
        buffers = [torch.empty((rows, size), dtype=dtype) for size in [*hidden, hidden[-1]]]
        self._policy = _Chain([*policy, self.head.linear], self, buffers, relu=relu)
        self._value = _Chain(value, self, buffers, relu=relu)

    def prepare(self) -> None:
        """Take in the parameters."""
        self._policy.prepare()
        self._value.prepare()

    def forward(self, vectors: Tensor, state: TensorDict | None) -> tuple[Tensor, Tensor]:
        """Take in the parameters."""
        rows = vectors.flatten(0, 1).to(self.dtype)
        return widen(self._policy.forward(rows)), widen(self._value.forward(rows))

    def state(self) -> None:
        """Return None: there is no state."""

    def descend(
        self,
        vectors: Tensor,
        state: TensorDict | None,
        output_gradient: Callable[[Tensor], Tensor],
        value_gradient: Callable[[Tensor], Tensor],
    ) -> None:
        """Run one network forward and backward, then the other."""
        rows = vectors.flatten(0, 1).to(self.dtype)
        self._policy.descend(rows, output_gradient)
        self._value.descend(rows, value_gradient)


class _Chain:
    """Linear layers with an activation between each two."""

    def __init__(self, layers: list[nn.Linear], kernel: Kernel, buffers: list[Tensor], *, relu: bool) -> None:
        """Run one network forward and backward, then the other."""
        self._layers = [Linear(layer, kernel) for layer in layers]
        self._kernel, self._relu = kernel, relu
        self._buffers = buffers
        self._onednn = _onednn_linear if kernel.dtype in (torch.float32, torch.bfloat16) else None

    def prepare(self) -> None:
        for layer in self._layers:
            layer.prepare()

    def forward(self, rows: Tensor) -> Tensor:
        """Return the last layer's output [N, k] for input [N, size], and keep the inputs of all layers."""
        buffers = self._buffers
        if len(rows) < self._kernel.rows:
            buffers = [buffer[: len(rows)] for buffer in buffers]
        self._inputs, self._scratch = [rows], buffers[-1]
        for layer, buffer in zip(self._layers[:-1], buffers[:-1], strict=True):
            if self._relu:
                rows = layer.forward(rows, buffer).relu_()
            elif self._onednn is not None:
                rows = self._onednn(rows, layer.weight, layer.bias, "tanh", [], "")
            else:
                rows = layer.forward(rows, buffer).tanh_()
            self._inputs.append(rows)
        return self._layers[-1].output(rows)

    def descend(self, rows: Tensor, gradient: Callable[[Tensor], Tensor]) -> None:
        """Run forward and backward; `gradient` takes the output [N, k] and returns the derivative by it."""
        d_rows = gradient(widen(self.forward(rows))).to(self._kernel.dtype)
        out = self._scratch
        for i in range(len(self._layers) - 1, -1, -1):
            rows = self._inputs[i]
            self._layers[i].add_gradient(d_rows, rows)
            if i == 0:
                return
            if out.shape[1] != rows.shape[1]:
                out = torch.empty_like(rows)
            self._layers[i].spread(d_rows, out)
            if self._relu:
                _relu_backward(out, rows, 0, grad_input=out)
            else:
                _tanh_backward(out, rows, grad_input=out)
            # The activations aren't needed any more: the next derivative goes where they were.
            d_rows, out = out, rows
