"""Long short-term memories, written out."""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor

from .base import Kernel, add_gradient, add_product, head_output, script, spread


@final
class LSTMKernel(Kernel):
    """Of the default recurrent models with one memory."""

    def __init__(self, model: Any, rows: int, dtype: torch.dtype) -> None:
        super().__init__(model, rows, dtype)
        self.head = model.policy
        self._cells = [_Cell(layer, self) for layer in range(model.lstm.num_layers)]
        self._heads = [(layer.weight, layer.bias) for layer in (self.head.linear, model.value)]
        self._d_hidden = torch.empty((rows, model.lstm.hidden_size), dtype=dtype)
        self._outputs, self._d_outputs = script(_outputs), script(_d_outputs)

    def prepare(self) -> None:
        """Take in the parameters."""
        for cell in self._cells:
            cell.prepare()
        self._weights, self._biases = (
            [p.detach() for p in column] for column in zip(*self._heads, strict=True)
        )

    def forward(
        self, vectors: Sequence[Tensor], state: TensorDict | None, ended: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the head's output [k, N · L] and the values [1, N · L]."""
        assert state is not None
        steps = vectors[0].transpose(0, 1)
        # Numbers of rows: few end, and to look at all of them in each layer takes longer.
        by_step = None if ended is None else [step.nonzero().squeeze(-1) for step in ended.unbind(1)]
        for layer, cell in enumerate(self._cells):
            steps = cell.forward(steps, state["hidden"][:, layer], state["cell"][:, layer], by_step)
        self._hidden = steps
        output, values = self._outputs(steps, self._weights, self._biases)
        return output, values

    def state(self) -> TensorDict:
        """Return the state after the last step of each sequence, [N, ...]."""
        hidden, cell = (
            torch.stack([getattr(c, name)[-1] for c in self._cells], 1) for name in ("hidden", "memory")
        )
        return TensorDict({"hidden": hidden, "cell": cell}, batch_size=len(hidden))

    def forward_backward(
        self,
        vectors: Sequence[Tensor],
        state: TensorDict | None,
        output_gradient: Callable[[Tensor], Tensor],
        value_gradient: Callable[[Tensor], Tensor],
        ended: Tensor | None = None,
    ) -> None:
        """Run forward, and backward through the steps."""
        output, values = self.forward(vectors, state, ended)
        d_outputs = [output_gradient(output), value_gradient(values)]
        weights, biases = (
            [self.gradients[parameter] for parameter in column] for column in zip(*self._heads, strict=True)
        )
        d_steps = self._d_outputs(d_outputs, self._hidden, self._weights, weights, biases, self._d_hidden)
        for cell in reversed(self._cells):
            d_steps = cell.backward(d_steps)


def _outputs(steps: Tensor, weights: list[Tensor], biases: list[Tensor]) -> list[Tensor]:
    """Return the heads' outputs [k, N · L] for hidden states [L, N, size]."""
    outputs: list[Tensor] = []
    for i in range(len(weights)):
        output = head_output(steps.flatten(0, 1), weights[i], biases[i])
        outputs.append(output.view(-1, steps.size(0), steps.size(1)).transpose(1, 2).flatten(1))
    return outputs


def _d_outputs(
    d_outputs: list[Tensor],
    steps: Tensor,
    weights: list[Tensor],
    weight_gradients: list[Tensor],
    bias_gradients: list[Tensor],
    out: Tensor,
) -> Tensor:
    """Add the heads' gradients; return the derivative by the hidden states [L, N, size], written to `out`."""
    rows = steps.flatten(0, 1)
    out = out[: rows.size(0)]
    for i in range(len(weights)):
        by_step = d_outputs[i].view(-1, steps.size(1), steps.size(0)).transpose(1, 2).flatten(1)
        add_gradient(by_step, rows, weight_gradients[i], bias_gradients[i])
        if i == 0:
            spread(by_step, weights[i], out)
        else:
            out.addmm_(by_step.t(), weights[i])
    return out.view(steps.size(0), steps.size(1), -1)


class _Cell:
    """One layer of a long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates).

    i, f, o = σ(W x + U h + b),  g = tanh(W x + U h + b),  c' = f c + i g,  h' = o tanh c'

    tanh z is computed as 2 σ(2z) − 1: with the weights of g doubled, one σ serves all four.
    """

    hidden: Tensor
    memory: Tensor
    """[L + 1, N, size]. h and c before each step, and after the last one."""

    def __init__(self, layer: int, kernel: Kernel) -> None:
        lstm, rows, dtype = kernel.model.lstm, kernel.rows, kernel.dtype
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self._parameters = [getattr(lstm, f"{name}_l{layer}") for name in names]
        self._kernel = kernel
        self._first, size = layer == 0, lstm.hidden_size
        self._size = size
        # With sequences of one step there are as many states before as after: 2 · rows.
        self._hidden, self._memory = (torch.empty((2 * rows, size), dtype=dtype) for _ in range(2))
        self._squashed, self._g, self._d_memory, self._d_product = (
            torch.empty((rows, size), dtype=dtype) for _ in range(4)
        )
        self._gates, self._d_gates = (torch.empty((rows, 4 * size), dtype=dtype) for _ in range(2))
        self._forward, self._backward = script(_cell_forward), script(_cell_backward)

    def prepare(self) -> None:
        self._inner, self._outer, *biases = (p.detach().clone() for p in self._parameters)
        self._bias = biases[0] + biases[1]
        for doubled in (self._inner, self._outer, self._bias):
            doubled[2 * self._size : 3 * self._size] *= 2

    def forward(self, steps: Tensor, hidden: Tensor, memory: Tensor, ended: list[Tensor] | None) -> Tensor:
        """Return h' of all steps, [L, N, size], for inputs [L, N, k].

        After each step but the last, h and c begin anew in the rows that `ended` has the numbers of, [n].
        """
        length, num, size = steps.shape[0], steps.shape[1], self._size
        self._steps, self._ended = steps, ended
        self.hidden, self.memory = (
            part[: (length + 1) * num].view(length + 1, num, size) for part in (self._hidden, self._memory)
        )
        self.gates = self._gates[: length * num].view(length, num, 4 * size)
        self.squashed, self.g = (
            part[: length * num].view(length, num, size) for part in (self._squashed, self._g)
        )
        self.hidden[0], self.memory[0] = hidden, memory
        self._forward(
            steps,
            self._inner,
            self._outer,
            self._bias,
            self.hidden,
            self.memory,
            self.gates,
            self.g,
            self.squashed,
            ended,
        )
        return self.hidden[1:]

    def backward(self, d_hidden: Tensor) -> Tensor:
        """Add the gradient, given the derivative with respect to h', [L, N, size]; changes that tensor.

        Returns:
            The derivative with respect to the inputs, [L, N, k]; of the observations nobody needs it, [0].
        """
        gradients = [self._kernel.gradients[parameter] for parameter in self._parameters]
        self._backward(
            d_hidden,
            self._steps,
            self._outer,
            self.hidden,
            self.memory,
            self.gates,
            self.g,
            self.squashed,
            [self._d_gates, self._d_memory, self._d_product],
            gradients,
            self._ended,
        )
        d_rows = self.gates.flatten(0, 1)
        if self._first:
            return d_rows[:0]
        return torch.mm(d_rows, self._parameters[0].detach()).view(*d_hidden.shape[:2], -1)


def _cell_forward(
    steps: Tensor,
    inner: Tensor,
    outer: Tensor,
    bias: Tensor,
    hidden: Tensor,
    memory: Tensor,
    gates: Tensor,
    g: Tensor,
    squashed: Tensor,
    ended: list[Tensor] | None,
) -> None:
    """Fill in h, c, the gates, g and tanh c of all steps; W, U and b have the rows of g doubled."""
    size = outer.size(1)
    minus_one = torch.full([], -1.0, dtype=g.dtype)
    for t in range(steps.size(0)):
        now, c = gates[t], memory[t + 1]
        if steps.size(2) == 1:
            torch.addcmul(bias, steps[t], inner.t(), out=now)
        else:
            torch.addmm(bias, steps[t], inner.t(), out=now)
        before = hidden[t]
        if ended is not None and t > 0:
            before = before.index_fill(0, ended[t - 1], 0.0)
            # The outputs need h, but nobody c.
            memory[t].index_fill_(0, ended[t - 1], 0.0)
        now.addmm_(before, outer.t()).sigmoid_()
        i, f, doubled, o = torch.split(now, size, -1)
        torch.add(minus_one, doubled, alpha=2, out=g[t])
        torch.mul(f, memory[t], out=c).addcmul_(i, g[t])
        tanh_c = torch.mul(c, 2, out=squashed[t]).sigmoid_().mul_(2).sub_(1)
        torch.mul(o, tanh_c, out=hidden[t + 1])


def _cell_backward(
    d_hidden: Tensor,
    steps: Tensor,
    outer: Tensor,
    hidden: Tensor,
    memory: Tensor,
    gates: Tensor,
    g: Tensor,
    squashed: Tensor,
    scratch: list[Tensor],
    gradients: list[Tensor],
    ended: list[Tensor] | None,
) -> None:
    """Add the gradients of W, U and both b; leaves the derivatives before σ and tanh in the gates."""
    length, num, size = d_hidden.size(0), d_hidden.size(1), d_hidden.size(2)
    d_gates, d_c, spare = scratch[0][:num], scratch[1][:num], scratch[2][:num]
    zero = torch.zeros([], dtype=d_c.dtype)
    d_i, d_f, d_g, d_o = torch.split(d_gates, size, -1)
    d_c.zero_()
    for t in range(length - 1, -1, -1):
        d_h, tanh_c, now = d_hidden[t], squashed[t], gates[t]
        i, f, _, o = torch.split(now, size, -1)
        torch.mul(d_h, tanh_c, out=d_o)
        product = torch.mul(d_h, o, out=spare)
        d_c.add_(torch.ops.aten.tanh_backward(product, tanh_c, grad_input=product))
        torch.mul(d_c, g[t], out=d_i)
        torch.mul(d_c, memory[t], out=d_f)
        torch.addcmul(zero, d_c, i, value=2, out=d_g)
        d_c.mul_(f)
        # From here on the gates hold their derivatives, before σ.
        torch.ops.aten.sigmoid_backward(d_gates, now, grad_input=now)
        if t > 0 and ended is not None:
            d_c.index_fill_(0, ended[t - 1], 0.0)
            product = torch.mm(now, outer, out=spare).index_fill_(0, ended[t - 1], 0.0)
            d_hidden[t - 1].add_(product)
            # The outputs have had h: from here on it is what U was multiplied with.
            hidden[t].index_fill_(0, ended[t - 1], 0.0)
        elif t > 0:
            d_hidden[t - 1].addmm_(now, outer)
    d_rows = gates.flatten(0, 1)
    d_rows[:, 2 * size : 3 * size] *= 2
    add_product(gradients[0], d_rows.t(), steps.flatten(0, 1))
    add_product(gradients[1], d_rows.t(), hidden[:-1].flatten(0, 1))
    d_bias = d_rows.sum(0)
    gradients[2].add_(d_bias)
    gradients[3].add_(d_bias)
