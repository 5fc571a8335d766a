"""Multilayer perceptrons, written out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from .base import Kernel, add_gradient, head_output, linear, script, spread
from .iteration import SmallNet


@final
class MLPKernel(Kernel):
    """Of the default feedforward models."""

    def __init__(self, model: Any, rows: int, dtype: torch.dtype) -> None:
        super().__init__(model, rows, dtype)
        self.head = model.policy[-1]
        self.relu = relu = type(model.policy[1]) is nn.ReLU
        """Whether activations are ReLU; else they are tanh."""
        self.num_inputs = model.policy[0].in_features + model.value[0].in_features
        """Numbers that both networks are given for a row."""
        policy, value = (
            [layer for layer in net if isinstance(layer, nn.Linear)]
            for net in (model.policy[:-1], model.value)
        )
        buffers = self._buffers(policy)
        self._policy = _Chain([*policy, self.head.linear], self, buffers, relu=relu)
        # Networks with the same hidden layers take turns: what is in the cache is used again.
        if [layer.out_features for layer in policy] != [layer.out_features for layer in value[:-1]]:
            buffers = self._buffers(value[:-1])
        self._value = _Chain(value, self, buffers, relu=relu)

    def _buffers(self, hidden: list[nn.Linear]) -> list[Tensor]:
        """Return storage for what hidden layers put out, and for a derivative."""
        sizes = [layer.out_features for layer in (*hidden, hidden[-1])]
        return [torch.empty((self.rows, size), dtype=self.dtype) for size in sizes]

    def prepare(self) -> None:
        """Take in the parameters."""
        self._policy.prepare()
        self._value.prepare()

    def forward(self, vectors: Sequence[Tensor], state: TensorDict | None) -> tuple[Tensor, Tensor]:
        """Return the head's output [k, N · L] and the values [1, N · L]."""
        rows = self._rows(vectors)
        return self._policy.forward(rows[0]), self._value.forward(rows[-1])

    def act(self, vectors: Tensor) -> Tensor:
        """Return the head's output [N, k] for encoded observations [N, size], in few operations."""
        if self.dtype == torch.bfloat16:
            # Folding would round the biases.
            return self.head_output(vectors).t().contiguous()
        return self._policy.act(vectors.to(self.dtype))

    def head_output(self, vectors: Tensor) -> Tensor:
        """Return the head's output [k, N] for encoded observations [N, size]."""
        return self._policy.forward(vectors.to(self.dtype))

    def values(self, vectors: Tensor) -> Tensor:
        """Return the values [1, N] for encoded observations [N, size]."""
        return self._value.forward(vectors.to(self.dtype))

    def state(self) -> None:
        """Return None: there is no state."""

    def forward_backward(
        self,
        vectors: Sequence[Tensor],
        state: TensorDict | None,
        output_gradient: Callable[[Tensor], Tensor],
        value_gradient: Callable[[Tensor], Tensor],
        ended: Tensor | None = None,
    ) -> None:
        """Run one network forward and backward, then the other."""
        rows = self._rows(vectors)
        self._policy.forward_backward(rows[0], output_gradient)
        self._value.forward_backward(rows[-1], value_gradient)

    def nets(self, size: int, gradients: Mapping[nn.Parameter, Tensor]) -> list[SmallNet]:
        """Return the networks of the head's output and of the values, as `iterate` takes them.

        Args:
            size: How many rows they are given.
            gradients: Where their gradients go, by parameter.
        """
        return [chain.net(size, gradients) for chain in (self._policy, self._value)]

    def layers(self) -> list[tuple[list[Tensor], list[Tensor]]]:
        """Return weights and biases, as they are, of the networks of the head's output and of values."""
        return [chain.layers() for chain in (self._policy, self._value)]

    def _rows(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Return vectors [N, L, size] as rows [N · L, size] of the dtype that is computed in."""
        return [each.flatten(0, 1).to(self.dtype) for each in vectors]


class _Chain:
    """Linear layers with an activation between each two."""

    def __init__(self, layers: list[nn.Linear], kernel: Kernel, buffers: list[Tensor], *, relu: bool) -> None:
        self._parameters = [(layer.weight, layer.bias) for layer in layers]
        self._kernel, self._buffers, self._relu = kernel, buffers, relu
        self._folded: list[tuple[Tensor, Tensor]] | None = None
        self._forward, self._backward = script(_forward), script(_backward)

    def act(self, rows: Tensor) -> Tensor:
        """Return the last layer's output [N, k] for input [N, size]."""
        if self._folded is None:
            self._folded = _folded(self._weights, self._biases, relu=self._relu)
        *hidden, (weight, bias) = self._folded
        for each, its_bias in hidden:
            rows = torch.addmm(its_bias, rows, each)
            rows = rows.relu_() if self._relu else rows.sigmoid_()
        return torch.addmm(bias, rows, weight)

    def layers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return weights and biases as they are now."""
        weights, biases = zip(*self._parameters, strict=True)
        return [each.detach() for each in weights], [each.detach() for each in biases]

    def net(self, size: int, gradients: Mapping[nn.Parameter, Tensor]) -> SmallNet:
        """Return the layers as they are, with room for so many rows."""
        weights, biases = (list(column) for column in zip(*self._parameters, strict=True))
        values = [bias.detach() for bias in biases]
        return SmallNet(
            [weight.detach() for weight in weights],
            [weight.detach().t() for weight in weights],
            [*values[:-1], values[-1].unsqueeze(-1)],
            [value.new_empty((size, len(value))) for value in values[:-1]],
            [gradients[weight] for weight in weights],
            [gradients[bias] for bias in biases],
            self._relu,
            values[0].new_full((), -1.0),
        )

    def prepare(self) -> None:
        dtype, self._folded = self._kernel.dtype, None
        self._weights, self._biases = (
            [parameter.detach().to(dtype) for parameter in column]
            for column in zip(*self._parameters, strict=True)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Return the last layer's output [k, N] for input [N, size]; the buffers hold the others'."""
        output: Tensor = self._forward(rows, self._weights, self._biases, self._buffers, self._relu)
        return output

    def forward_backward(self, rows: Tensor, gradient: Callable[[Tensor], Tensor]) -> None:
        """Run forward and backward; `gradient` takes the output [k, N] and returns the derivative by it."""
        d_columns = gradient(self.forward(rows))
        weights, biases = (
            [self._kernel.gradients[parameter] for parameter in column]
            for column in zip(*self._parameters, strict=True)
        )
        self._backward(d_columns, rows, self._weights, self._buffers, weights, biases, self._relu)


def _folded(weights: list[Tensor], biases: list[Tensor], *, relu: bool) -> list[tuple[Tensor, Tensor]]:
    """Return layers (weight [size, k], bias [k]) with σ(2z) in place of tanh z = 2 σ(2z) − 1.

    The rest of the tangent goes into the layers around it: an operation less for each.
    """
    if relu:
        return [(weight.t(), bias) for weight, bias in zip(weights, biases, strict=True)]
    last, layers = len(weights) - 1, []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        before, after = (1.0 if i == 0 else 2.0), (1.0 if i == last else 2.0)
        bias = bias if i == 0 else bias - weight.sum(1)
        layers.append((weight.t() * (before * after), bias * after))
    return layers


def _forward(
    rows: Tensor, weights: list[Tensor], biases: list[Tensor], buffers: list[Tensor], relu: bool
) -> Tensor:
    """Return the output of the last layer [k, N], in float32 if the others compute in 16 bits."""
    half = rows.dtype == torch.bfloat16
    num, last = rows.size(0), len(weights) - 1
    for i in range(last):
        out = buffers[i][:num]
        if relu:
            rows = linear(rows, weights[i], biases[i], 1.0, out).relu_()
        elif half:
            rows = linear(rows, weights[i], biases[i], 1.0, out).tanh_()
        else:
            # tanh z = 2 σ(2z) − 1: torch's σ is several times as fast as its tanh.
            linear(rows, weights[i], biases[i], 2.0, out).sigmoid_()
            rows = torch.add(torch.full([], -1.0, dtype=out.dtype), out, alpha=2, out=out)
    output = head_output(rows, weights[last], biases[last])
    return output.float() if half else output


def _backward(
    d_columns: Tensor,
    rows: Tensor,
    weights: list[Tensor],
    buffers: list[Tensor],
    weight_gradients: list[Tensor],
    bias_gradients: list[Tensor],
    relu: bool,
) -> None:
    """Add the gradients, given the derivative by the last output [k, N] and the buffers of `_forward`."""
    num, last = rows.size(0), len(weights) - 1
    d_columns = d_columns.to(rows.dtype)
    free = buffers[last][:num]
    for i in range(last, 0, -1):
        inputs = buffers[i - 1][:num]
        add_gradient(d_columns, inputs, weight_gradients[i], bias_gradients[i])
        if free.size(1) != inputs.size(1):
            free = torch.empty_like(inputs)
        out = spread(d_columns, weights[i], free)
        if relu:
            torch.ops.aten.threshold_backward(out, inputs, 0, grad_input=out)
        else:
            torch.ops.aten.tanh_backward(out, inputs, grad_input=out)
        # The activations aren't needed any more: the next derivative goes where they were.
        d_columns, free = out.t(), inputs
    add_gradient(d_columns, rows, weight_gradients[0], bias_gradients[0])
