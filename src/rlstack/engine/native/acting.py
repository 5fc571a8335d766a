"""Acting in machine code: one network, and what is drawn from what it puts out; and the values of another."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from .kept import SOURCES, call, kept
from .networks import block_rows, forward, lay_out, net_of, places

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_LOG_2 = math.log(2)


class Way(NamedTuple):
    """How numbers that were drawn become actions."""

    squash: bool
    """By the hyperbolic tangent."""
    clip: bool
    """To [-1, 1]."""
    low: Any
    """[k]. What -1 is for the environment; [0] if numbers stay what they are."""
    high: Any
    """[k]. What 1 is."""


def _kept(sources: str) -> tuple[Any, Any, Any]:
    """Return `choose`, `draw` and `value`, kept for as long as these sources stay."""

    @kept
    def choose(rows, net, noise, drawn, logp):
        """Draw choices as `Categorical` does, given numbers from Exp(1)."""
        number, tiny, k = noise.dtype.type, np.finfo(noise.dtype).tiny, noise.shape[1]
        for start in range(0, len(rows), len(net.output)):
            some = rows[start : start + len(net.output)]
            forward(some, net)
            for n in range(len(some)):
                logits, top, total = net.output[n], net.output[n, 0], number(0)
                for j in range(1, k):
                    top = max(top, logits[j])
                for j in range(k):
                    total += math.exp(logits[j] - top)
                shift, choice, most = top + math.log(total), 0, number(-np.inf)
                for j in range(k):
                    speed = logits[j] - shift - math.log(max(noise[start + n, j], tiny))
                    if speed > most:
                        choice, most = j, speed
                drawn[start + n, 0], logp[start + n, 0] = choice, logits[choice] - shift
        return sources

    @kept
    def draw(rows, net, noise, drawn, logp, actions, log_std, way):
        """Draw numbers as `Normal` and `SquashedNormal` do, given standard normal ones."""
        number, k = noise.dtype.type, len(log_std)
        for start in range(0, len(rows), len(net.output)):
            some = rows[start : start + len(net.output)]
            forward(some, net)
            for n in range(len(some)):
                total = number(0)
                for j in range(k):
                    mean, std = net.output[n, j], math.exp(log_std[j])
                    u = mean + std * noise[start + n, j]
                    z = (u - mean) / std
                    total -= number(0.5) * z * z + log_std[j] + number(_HALF_LOG_2PI)
                    drawn[start + n, j] = u
                    if way.squash:
                        beyond = -2 * u if -2 * u > 20 else math.log1p(math.exp(-2 * u))
                        total -= number(2) * (number(_LOG_2) - u - beyond)
                        u = math.tanh(u)
                    elif way.clip:
                        u = number(-1) if u < -1 else number(1) if u > 1 else u
                    if len(way.low):
                        share = number(0.5) * (u + number(1))
                        u = (number(1) - share) * way.low[j] + share * way.high[j]
                    actions[start + n, j] = u
                logp[start + n, 0] = total
        return sources

    @kept
    def value(rows, net, values):
        """Write the values of rows."""
        for start in range(0, len(rows), len(net.output)):
            some = rows[start : start + len(net.output)]
            forward(some, net)
            for n in range(len(some)):
                values[start + n, 0] = net.output[n, 0]
        return sources

    return choose, draw, value


_choose, _draw, _value = _kept(SOURCES)


class _Forward:
    """A network on its way forward, on each thread by itself.

    Args:
        weights: Of linear layers with an activation between each two, [outputs, inputs].
        relu: Whether activations are ReLU; else they are tanh.
        threads: How many.
    """

    def __init__(self, weights: Sequence[Tensor], *, relu: bool, threads: int) -> None:
        self.dtype = weights[0].numpy().dtype
        shapes, begin = [tuple(weight.shape) for weight in weights], np.zeros(4, np.int64)
        rows = block_rows(shapes)
        layers = lay_out(shapes, self.dtype, rows, begin)
        _, size, _, results = begin
        parameters, nothing = np.zeros(size, self.dtype), np.zeros(0, self.dtype)
        self.nets = []
        for _ in range(threads):
            out = np.zeros(results, self.dtype)
            storage = {"parameters": parameters, "gradient": nothing, "turned": nothing}
            self.nets.append(net_of(layers, rows, relu=relu, **storage, results=out, derivatives=out))
        parts = places(parameters, layers)
        self._weights, self._biases = parts[::2], parts[1::2]

    def load(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        """Take in the parameters."""
        torch._foreach_copy_(self._weights, [weight.t() for weight in weights])
        torch._foreach_copy_(self._biases, list(biases))


@final
class Actor(_Forward):
    """Acts by the network whose output is the head's."""

    def __init__(self, weights: Sequence[Tensor], *, relu: bool, threads: int) -> None:
        super().__init__(weights, relu=relu, threads=threads)
        self._size = len(weights[-1])
        self._way, self._log_std = Way(False, False, *2 * [np.zeros(0)]), np.zeros(0)

    def choose(self, thread: int, vectors: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return choices [N, 1] and their log-probabilities [N, 1].

        Args:
            thread: On which thread.
            vectors: [N, size]. Encoded observations.
            noise: [N, n]. Numbers from Exp(1).
        """
        rows = vectors.contiguous().numpy()
        drawn, logp = np.empty((len(rows), 1), np.int64), np.empty((len(rows), 1), self.dtype)
        call(_choose, "drawing choices", rows, self.nets[thread], noise.numpy(), drawn, logp)
        return torch.from_numpy(drawn), torch.from_numpy(logp)

    def load_way(self, log_std: Tensor, *, squash: bool, clip: bool, bounds: Sequence[Tensor] | None) -> None:
        """Take in how numbers are drawn.

        Args:
            log_std: [*A]. The logarithm of their standard deviation.
            squash: Whether actions are their hyperbolic tangents.
            clip: Whether actions are clipped to [-1, 1].
            bounds: [*A]. What -1 and 1 are for the environment; None if numbers stay what they are.
        """
        self._log_std = log_std.reshape(-1).numpy()
        low, high = (each.reshape(-1).to(log_std.dtype).numpy() for each in bounds or 2 * [log_std[:0]])
        self._way = Way(squash, clip, low, high)

    def draw(self, thread: int, vectors: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return numbers [N, k], their log-densities [N, 1] and the actions that they make [N, k].

        Args:
            thread: On which thread.
            vectors: [N, size]. Encoded observations.
            noise: [N, k]. Standard normal numbers.
        """
        rows = vectors.contiguous().numpy()
        drawn, actions = (np.empty((len(rows), self._size), self.dtype) for _ in range(2))
        logp = np.empty((len(rows), 1), self.dtype)
        given = noise.numpy(), drawn, logp, actions, self._log_std, self._way
        call(_draw, "drawing numbers", rows, self.nets[thread], *given)
        return torch.from_numpy(drawn), torch.from_numpy(logp), torch.from_numpy(actions)


@final
class Critic(_Forward):
    """Says what observations are worth."""

    def values(self, thread: int, vectors: Tensor) -> Tensor:
        """Return the values [N, 1] of encoded observations [N, size].

        Args:
            thread: On which thread.
            vectors: [N, size]. Encoded observations.
        """
        values = np.empty((len(vectors), 1), self.dtype)
        call(_value, "values", vectors.contiguous().numpy(), self.nets[thread], values)
        return torch.from_numpy(values)
