"""Optimizer steps in machine code: the gradient of some rows, and what is made of it.

They do what `rlstack.engine.kernels.iteration` does, in another order of the same sums.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .adam import adam_step, norm
from .compiled import compiled
from .losses import ADVANTAGE, CLIPPED, ENTROPY, KL_DIV, SQUARES, SURROGATE, clip, rate_actions, rate_values
from .networks import backward, forward


class State(NamedTuple):
    """What Adam changes, and the gradient: flat, those of one network after the other, log std at the end."""

    parameters: Any
    means: Any
    squares: Any
    most: Any
    """Of `amsgrad`."""
    gradient: Any


class Room(NamedTuple):
    """Storage of one thread for the rows of a block."""

    policy: Any
    """[N, size]. Encoded observations."""
    value: Any
    """[N, size]. The same, as the values are made from them."""
    log_ratios: Any
    """[N]."""


@compiled
def descend(numbers, total, rows, net, is_policy, loss, room, sums):
    """Add a network's gradient of the rows with these numbers, some of `total`, and sums over them.

    One function for both networks, since what it calls is compiled wherever it is called.
    """
    block, given = len(room.log_ratios), rows.policy if is_policy else rows.value
    storage = room.policy if is_policy else room.value
    for start in range(0, len(numbers), block):
        some, own = numbers[start : start + block], np.zeros(5)
        vectors, log_ratios = storage[: len(some)], room.log_ratios[: len(some)]
        take(given, some, vectors)
        forward(vectors, net)
        if is_policy:
            rate_actions(some, total, rows, net, loss, log_ratios, own)
            if not math.isfinite(own[SURROGATE]):
                own[SURROGATE] = bounded_surrogate(log_ratios, some, rows.targets, loss)
        else:
            rate_values(some, total, rows, net, loss, own)
        backward(vectors, net)
        sums += own


@compiled
def conclude(sums, size, state, spans, options, step, loss, into):
    """Make a step of Adam from the gradient of `size` rows, if it can be; return whether it was.

    Args:
        sums: [5]. Over those rows.
        size: How many.
        state: With the gradient.
        spans: As of `iterate`.
        options: As of `iterate`.
        step: How many steps have been made.
        loss: The loss.
        into: [11]. Gets the `StepRecord`.
    """
    length = norm(state.gradient)
    record(sums, size, length, loss, into)
    if into[-1] == 0:
        return False
    scale = min(1.0, loss.max_grad_norm / (length + 1e-6))
    for n in range(len(spans)):
        a, b = spans[n]
        flat = state.parameters[a:b], state.gradient[a:b], state.means[a:b], state.squares[a:b]
        adam_step(options[n], step + 1, scale, *flat, state.most[a:b])
    return True


@compiled
def take(rows, numbers, taken):
    """Copy the rows with these numbers."""
    for n in range(len(numbers)):
        for i in range(rows.shape[1]):
            taken[n, i] = rows[numbers[n], i]


@compiled
def bounded_surrogate(log_ratios, numbers, targets, loss):
    """Return the sum of the clipped surrogates, without infinity where the loss is sure to clip it."""
    total = 0.0
    for n in range(len(numbers)):
        target, log_ratio = targets[numbers[n]], log_ratios[n]
        if log_ratio > loss.largest_log_ratio and (loss.dual_clip or target[ADVANTAGE] >= 0):
            log_ratio = target.dtype.type(loss.largest_log_ratio)
        total += clip(math.exp(log_ratio) * target[ADVANTAGE], target, loss.dual_clip)
    return total


@compiled
def record(sums, size, grad_norm, loss, into):
    """Write the `StepRecord` of a step from `size` rows."""
    policy_loss, value_loss = -sums[SURROGATE], 0.5 * sums[SQUARES] / size
    entropy, kl_div, clipped = sums[ENTROPY] / size, sums[KL_DIV] / size, sums[CLIPPED] / size
    total = policy_loss + loss.vf_coeff * value_loss - loss.entropy_coeff * entropy
    loss_ok, grad_ok = math.isfinite(total), math.isfinite(grad_norm)
    made = loss_ok and grad_ok and kl_div <= loss.largest_kl_div
    said = (total, policy_loss, value_loss, entropy, kl_div, clipped, grad_norm, 1.0)
    for n in range(len(said)):
        into[n] = said[n]
    into[8], into[9], into[10] = loss_ok, grad_ok, made
