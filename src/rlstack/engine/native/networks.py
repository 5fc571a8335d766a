"""Networks forward and backward in machine code.

A layer's weight is [inputs, width]: its outputs, and zeros up to whole vectors, which stay zeros. Its bias is
one more row.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .compiled import compiled
from .functions import tanh
from .products import BYTES, add_product

PLAIN, INPUTS, OUTPUTS, WIDTH, WEIGHT, TURNED, RESULT = range(7)
"""Of a layer: where its parameters begin in torch's order, its size, and where it begins in our storage."""


class Net(NamedTuple):
    """A network, and storage for what it computes."""

    layers: Any
    """[layers, 7], whole numbers as named above."""
    relu: bool
    """Whether activations are ReLU; else they are tanh."""
    parameters: Any
    gradient: Any
    turned: Any
    """Weights as torch has them, [outputs, inputs]: the way back goes through them."""
    results: Any
    """What layers put out, one after the other."""
    derivatives: Any
    """Of the loss by that."""
    output: Any
    """[N, width]. The last of the results."""
    d_output: Any
    """[N, width]. The last of the derivatives."""


_BLOCK = 2**16
"""Numbers that a network's layers put out for the rows that are computed at a time: a core's cache has room
for them."""


def block_rows(shapes: Sequence[tuple[int, ...]]) -> int:
    """Return how many rows to compute at a time, given the shapes (outputs, inputs) of all weights."""
    return max(16, _BLOCK // sum(outputs for outputs, _ in shapes))


def lay_out(shapes: Sequence[tuple[int, ...]], dtype: Any, rows: int, begin: Any) -> Any:
    """Return the layers of a network, as of `Net`.

    Args:
        shapes: Of their weights, (outputs, inputs).
        dtype: Of the parameters.
        rows: What it is given at a time.
        begin: [4]. Where they begin in torch's order, in ours, among the turned weights and among the
            results; it becomes where they end.
    """
    table, before, lanes = [], 0, BYTES // dtype.itemsize
    for outputs, inputs in shapes:
        width = -(-outputs // lanes) * lanes
        plain, ours, turned, result = begin
        table.append((plain, inputs, outputs, width, ours, turned, result))
        begin += ((inputs + 1) * outputs, (inputs + 1) * width, outputs * before, rows * width)
        before = width
    return np.array(table)


def net_of(
    layers: Any,
    rows: int,
    *,
    relu: bool,
    parameters: Any,
    gradient: Any,
    turned: Any,
    results: Any,
    derivatives: Any,
) -> Net:
    """Return a network for so many rows at a time; the other arguments are those of `Net`."""
    last = slice(layers[-1][-1], layers[-1][-1] + rows * layers[-1][3])
    output, d_output = (each[last].reshape(rows, -1) for each in (results, derivatives))
    return Net(layers, relu, parameters, gradient, turned, results, derivatives, output, d_output)


def places(flat: Any, layers: Any) -> list[Tensor]:
    """Return which parts of parameters are weights, [inputs, outputs], and biases, [outputs], by layer."""
    found = []
    for _, inputs, outputs, width, start, *_ in layers.tolist():
        both = torch.from_numpy(flat)[start : start + (inputs + 1) * width].view(-1, width)
        found += [both[:-1, :outputs], both[-1, :outputs]]
    return found


def turned_places(flat: Any, layers: Any) -> list[Tensor]:
    """Return which parts are turned weights, [outputs, inputs], of all layers but the first."""
    found, (*_, before, _, _, _) = [], layers[0].tolist()
    for _, inputs, outputs, width, _, start, _ in layers[1:].tolist():
        turned = torch.from_numpy(flat)[start : start + outputs * before].view(outputs, before)
        found.append(turned[:, :inputs])
        before = width
    return found


@compiled
def matrix(flat, start, height, width):
    """Return a part of a flat array as [height, width]."""
    return flat[start : start + height * width].reshape(height, width)


@compiled
def turn(net):
    """Lay out the weights for the way back, after each change."""
    for n in range(1, len(net.layers)):
        layer = net.layers[n]
        weight = matrix(net.parameters, layer[WEIGHT], layer[INPUTS], layer[WIDTH])
        turned = matrix(net.turned, layer[TURNED], layer[OUTPUTS], net.layers[n - 1][WIDTH])
        # Written in order: the other way round takes four times as long.
        for o in range(layer[OUTPUTS]):
            for i in range(layer[INPUTS]):
                turned[o, i] = weight[i, o]


@compiled
def forward(rows, net):
    """Leave what all layers put out in the results, given rows [N, inputs]."""
    inputs = rows[:, :]
    for n in range(len(net.layers)):
        layer = net.layers[n]
        parameters = matrix(net.parameters, layer[WEIGHT], layer[INPUTS] + 1, layer[WIDTH])
        out, bias = matrix(net.results, layer[RESULT], len(rows), layer[WIDTH]), parameters[layer[INPUTS]]
        for i in range(len(out)):
            for j in range(len(bias)):
                out[i, j] = bias[j]
        add_product(inputs[:, : layer[INPUTS]], parameters, out)
        if n + 1 < len(net.layers):
            activate(out.reshape(out.size), net.relu)
        inputs = out[:, :]


@compiled
def activate(values, relu):
    """Put the activation in the place of its arguments."""
    if relu:
        for i in range(len(values)):
            values[i] = 0 if values[i] < 0 else values[i]
    else:
        for i in range(len(values)):
            values[i] = tanh(values[i])


@compiled
def backward(rows, net):
    """Add to the gradient, given rows [N, inputs] and the derivative by the output."""
    for n in range(len(net.layers) - 1, -1, -1):
        layer = net.layers[n]
        inputs, width = layer[INPUTS], layer[WIDTH]
        derivative = matrix(net.derivatives, layer[RESULT], len(rows), width)
        gradient = matrix(net.gradient, layer[WEIGHT], inputs + 1, width)
        bias = gradient[inputs]
        for i in range(len(rows)):
            for j in range(width):
                bias[j] += derivative[i, j]
        if n == 0:
            add_product(rows[:, :inputs].T, derivative, gradient)
            break
        before = net.layers[n - 1]
        values = matrix(net.results, before[RESULT], len(rows), before[WIDTH])
        add_product(values[:, :inputs].T, derivative, gradient)
        below = matrix(net.derivatives, before[RESULT], len(rows), before[WIDTH])
        below[:] = 0
        turned = matrix(net.turned, layer[TURNED], layer[OUTPUTS], before[WIDTH])
        add_product(derivative[:, : layer[OUTPUTS]], turned, below)
        differentiate(below.reshape(below.size), values.reshape(values.size), net.relu)


@compiled
def differentiate(derivatives, values, relu):
    """Turn derivatives by activations, which are given, into those by their arguments."""
    if relu:
        for i in range(len(values)):
            derivatives[i] = derivatives[i] if values[i] > 0 else 0
    else:
        one = values.dtype.type(1)
        for i in range(len(values)):
            derivatives[i] *= one - values[i] * values[i]
