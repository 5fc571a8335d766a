"""Long short-term memories, written out."""

from collections.abc import Callable
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor

from .base import Kernel, Linear, add_product

_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


@final
class LSTMKernel(Kernel):
    """Of the default recurrent models."""

    def __init__(self, model: Any, rows: int, dtype: torch.dtype) -> None:
        super().__init__(model, rows, dtype)
        self.head = model.policy
        self._cells = [_Cell(layer, self) for layer in range(model.lstm.num_layers)]
        self._heads = [Linear(self.head.linear, self), Linear(model.value, self)]
        self._d_hidden = torch.empty((rows, model.lstm.hidden_size), dtype=dtype)

    def prepare(self) -> None:
        """Take in the parameters."""
        for cell in self._cells:
            cell.prepare()
        for head in self._heads:
            head.prepare()

    def forward(self, vectors: Tensor, state: TensorDict | None) -> tuple[Tensor, Tensor]:
        """Take in the parameters."""
        assert state is not None
        self._shape = (vectors.shape[1], vectors.shape[0])
        steps = vectors.transpose(0, 1)
        for layer, cell in enumerate(self._cells):
            steps = cell.forward(steps, state["hidden"][:, layer], state["cell"][:, layer])
        self._hidden = steps.flatten(0, 1)
        output, values = (self._sequences_first(head.output(self._hidden)) for head in self._heads)
        return output, values

    def state(self) -> TensorDict:
        """Return the head's output [N · L, k] and the values [N · L, 1]."""
        hidden, cell = (
            torch.stack([getattr(c, name)[-1] for c in self._cells], 1) for name in ("hidden", "memory")
        )
        return TensorDict({"hidden": hidden, "cell": cell}, batch_size=len(hidden))

    def descend(
        self,
        vectors: Tensor,
        state: TensorDict | None,
        output_gradient: Callable[[Tensor], Tensor],
        value_gradient: Callable[[Tensor], Tensor],
    ) -> None:
        """Return the state after the last step of each sequence, [N, ...]."""
        output, values = self.forward(vectors, state)
        d_output, d_values = output_gradient(output), value_gradient(values)
        d_hidden = self._d_hidden[: len(d_output)]
        policy, value = self._heads
        d_output, d_values = self._steps_first(d_output), self._steps_first(d_values)
        policy.add_gradient(d_output, self._hidden)
        value.add_gradient(d_values, self._hidden)
        policy.spread(d_output, d_hidden)
        d_hidden.addcmul_(d_values, value.weight)
        d_steps = d_hidden.view(*self._shape, -1)
        for cell in reversed(self._cells):
            d_steps = cell.backward(d_steps)

    def _sequences_first(self, rows: Tensor) -> Tensor:
        """Return rows [L · N, k] in the order [N · L, k]."""
        return rows.view(*self._shape, -1).transpose(0, 1).flatten(0, 1)

    def _steps_first(self, rows: Tensor) -> Tensor:
        """Return rows [N · L, k] in the order [L · N, k]."""
        return rows.view(*reversed(self._shape), -1).transpose(0, 1).flatten(0, 1)


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
        self._size, self._first = lstm.hidden_size, layer == 0
        size = self._size
        # With sequences of one step there are as many states before as after: 2 · rows.
        self._hidden, self._memory = (torch.empty((2 * rows, size), dtype=dtype) for _ in range(2))
        self._squashed, self._g, self._d_memory, self._d_product = (
            torch.empty((rows, size), dtype=dtype) for _ in range(4)
        )
        self._gates, self._d_gates = (torch.empty((rows, 4 * size), dtype=dtype) for _ in range(2))
        self._zero, self._minus_one = torch.zeros((), dtype=dtype), -torch.ones((), dtype=dtype)

    def prepare(self) -> None:
        self._inner, self._outer, *biases = (p.detach().clone() for p in self._parameters)
        self._bias = biases[0] + biases[1]
        for doubled in (self._inner, self._outer, self._bias):
            doubled[2 * self._size : 3 * self._size] *= 2

    def forward(self, steps: Tensor, hidden: Tensor, memory: Tensor) -> Tensor:
        """Return h' of all steps, [L, N, size], for inputs [L, N, k]."""
        length, num, size = steps.shape[0], steps.shape[1], self._size
        self._steps = steps
        self.hidden, self.memory = (
            part[: (length + 1) * num].view(length + 1, num, size) for part in (self._hidden, self._memory)
        )
        self.gates = self._gates[: length * num].view(length, num, 4 * size)
        self.squashed, self.g = (
            part[: length * num].view(length, num, size) for part in (self._squashed, self._g)
        )
        self.hidden[0], self.memory[0] = hidden, memory
        for t in range(length):
            gates, g, c = self.gates[t], self.g[t], self.memory[t + 1]
            if steps.shape[2] == 1:
                torch.addcmul(self._bias, steps[t], self._inner.t(), out=gates)
            else:
                torch.addmm(self._bias, steps[t], self._inner.t(), out=gates)
            gates.addmm_(self.hidden[t], self._outer.t()).sigmoid_()
            i, f, doubled, o = gates.split(size, -1)
            torch.add(self._minus_one, doubled, alpha=2, out=g)
            torch.mul(f, self.memory[t], out=c).addcmul_(i, g)
            squashed = torch.mul(c, 2, out=self.squashed[t]).sigmoid_().mul_(2).sub_(1)
            torch.mul(o, squashed, out=self.hidden[t + 1])
        return self.hidden[1:]

    def backward(self, d_hidden: Tensor) -> Tensor:
        """Add the gradient, given the derivative with respect to h', [L, N, size]; changes that tensor.

        Returns:
            The derivative with respect to the inputs, [L, N, k]; of the observations nobody needs it, [0].
        """
        length, num, size = d_hidden.shape
        d_gates, d_c = self._d_gates[:num], self._d_memory[:num]
        d_i, d_f, d_g, d_o = d_gates.split(size, -1)
        d_c.zero_()
        for t in range(length - 1, -1, -1):
            d_h, squashed, gates = d_hidden[t], self.squashed[t], self.gates[t]
            i, f, _, o = gates.split(size, -1)
            torch.mul(d_h, squashed, out=d_o)
            product = torch.mul(d_h, o, out=self._d_product[:num])
            d_c.add_(_tanh_backward(product, squashed, grad_input=product))
            torch.mul(d_c, self.g[t], out=d_i)
            torch.mul(d_c, self.memory[t], out=d_f)
            torch.addcmul(self._zero, d_c, i, value=2, out=d_g)
            d_c.mul_(f)
            # From here on the gates hold their derivatives, before σ.
            _sigmoid_backward(d_gates, gates, grad_input=gates)
            if t > 0:
                d_hidden[t - 1].addmm_(gates, self._outer)
        d_rows = self.gates.flatten(0, 1)
        d_rows[:, 2 * size : 3 * size] *= 2
        inner, outer, *biases = (self._kernel.gradients[parameter] for parameter in self._parameters)
        add_product(inner, d_rows, self._steps.flatten(0, 1))
        add_product(outer, d_rows, self.hidden[:-1].flatten(0, 1))
        d_bias = d_rows.sum(0)
        for bias in biases:
            bias.add_(d_bias)
        if self._first:
            return d_rows[:0]
        return torch.mm(d_rows, self._parameters[0].detach()).view(length, num, -1)
