"""Acting in machine code: one network, and what is drawn from what it puts out."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from .compiled import compiled
from .kept import SOURCES, call, kept
from .networks import Net, forward, lay_out, places
from .products import BYTES

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


@compiled
def choose(rows, net, noise, drawn, logp):
    """Draw choices as `Categorical` does, given numbers from Exp(1)."""
    forward(rows, net)
    number, tiny = noise.dtype.type, np.finfo(noise.dtype).tiny
    for n in range(len(rows)):
        logits, top, total = net.output[n], net.output[n, 0], number(0)
        for j in range(1, noise.shape[1]):
            top = max(top, logits[j])
        for j in range(noise.shape[1]):
            total += math.exp(logits[j] - top)
        shift, choice, most = top + math.log(total), 0, number(-np.inf)
        for j in range(noise.shape[1]):
            speed = logits[j] - shift - math.log(max(noise[n, j], tiny))
            if speed > most:
                choice, most = j, speed
        drawn[n, 0], logp[n, 0] = choice, logits[choice] - shift


@compiled
def draw(rows, net, noise, log_std, way, drawn, logp, actions):
    """Draw numbers as `Normal` and `SquashedNormal` do, given standard normal ones."""
    forward(rows, net)
    number, k = noise.dtype.type, len(log_std)
    for n in range(len(rows)):
        total = number(0)
        for j in range(k):
            mean, std = net.output[n, j], math.exp(log_std[j])
            u = mean + std * noise[n, j]
            z = (u - mean) / std
            total -= number(0.5) * z * z + log_std[j] + number(_HALF_LOG_2PI)
            drawn[n, j] = u
            if way.squash:
                beyond = -2 * u if -2 * u > 20 else math.log1p(math.exp(-2 * u))
                total -= number(2) * (number(_LOG_2) - u - beyond)
                u = math.tanh(u)
            elif way.clip:
                u = number(-1) if u < -1 else number(1) if u > 1 else u
            if len(way.low):
                share = number(0.5) * (u + number(1))
                u = (number(1) - share) * way.low[j] + share * way.high[j]
            actions[n, j] = u
        logp[n, 0] = total


def _kept(sources: str) -> tuple[Any, Any]:
    """Return `choose` and `draw`, kept for as long as these sources stay."""

    @kept
    def kept_choose(rows, net, noise, drawn, logp):
        choose(rows, net, noise, drawn, logp)
        return sources

    @kept
    def kept_draw(rows, net, noise, log_std, way, drawn, logp, actions):
        draw(rows, net, noise, log_std, way, drawn, logp, actions)
        return sources

    return kept_choose, kept_draw


_choose, _draw = _kept(SOURCES)


@final
class Actor:
    """Acts on so many rows at a time.

    Args:
        weights: Of linear layers with an activation between each two, [outputs, inputs].
        rows: How many.
        relu: Whether activations are ReLU; else they are tanh.
        way: How numbers become actions; None if what is drawn are choices.
    """

    def __init__(self, weights: Sequence[Tensor], rows: int, *, relu: bool, way: Way | None) -> None:
        dtype = np.dtype(str(weights[0].dtype).removeprefix("torch."))
        begin = np.zeros(4, np.int64)
        layers = lay_out([tuple(weight.shape) for weight in weights], BYTES // dtype.itemsize, rows, begin)
        _, size, _, results = begin
        parameters, out, nothing = np.zeros(size, dtype), np.zeros(results, dtype), np.zeros(0, dtype)
        output = out[-rows * layers[-1, 3] :].reshape(rows, -1)
        self._net = Net(
            layers, relu, parameters, nothing, nothing, out, nothing, output, nothing.reshape(0, 1)
        )
        self._weights, self._biases = places(parameters, layers)[::2], places(parameters, layers)[1::2]
        self._way, self._rows = way, rows
        self._noise = weights[0].new_empty((rows, len(weights[-1])))
        self._log_std = np.zeros(len(weights[-1]), dtype)

    def load(self, weights: Sequence[Tensor], biases: Sequence[Tensor], log_std: Tensor | None) -> None:
        """Take in the parameters."""
        torch._foreach_copy_(self._weights, [weight.t() for weight in weights])
        torch._foreach_copy_(self._biases, list(biases))
        if log_std is not None:
            self._log_std[:] = log_std.view(-1).numpy()

    def act(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is drawn [N, k], its log-probability [N, 1] and the actions [N, k]; choices have k = 1.

        Args:
            vectors: [N, size]. Encoded observations.
        """
        rows, noise = vectors.contiguous().numpy(), self._noise.numpy()
        logp = np.empty((self._rows, 1), noise.dtype)
        if self._way is None:
            self._noise.exponential_()
            drawn = np.empty((self._rows, 1), np.int64)
            call(_choose, "choices", rows, self._net, noise, drawn, logp)
            choices = torch.from_numpy(drawn)
            return choices, torch.from_numpy(logp), choices
        self._noise.normal_()
        drawn, actions = np.empty_like(noise), np.empty_like(noise)
        call(_draw, "numbers", rows, self._net, noise, self._log_std, self._way, drawn, logp, actions)
        return torch.from_numpy(drawn), torch.from_numpy(logp), torch.from_numpy(actions)
