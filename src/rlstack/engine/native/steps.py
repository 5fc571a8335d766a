"""All optimizer steps of SGD iterations as one function in machine code.

It does what `iterate` of `rlstack.engine.kernels.iteration` does, in another order of the same sums.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .adam import adam_step, norm
from .compiled import compiled, inlined
from .losses import (
    ADVANTAGE,
    CLIPPED,
    ENTROPY,
    KL_DIV,
    SQUARES,
    SURROGATE,
    clip,
    rate_choices,
    rate_numbers,
    rate_values,
)
from .networks import backward, forward, load, store, turn


class State(NamedTuple):
    """What Adam changes, and the gradient: flat, those of one network after the other, log std at the end."""

    parameters: Any
    means: Any
    squares: Any
    most: Any
    """Of `amsgrad`."""
    gradient: Any


@inlined
def iterate(order, rows, policy, value, layers, state, plain, spans, options, step, loss, records):
    """Make optimizer steps until one can't be made; return how many were tried.

    Args:
        order: [minibatches, N]. Numbers of the rows of each.
        rows: What to learn from.
        policy: The network whose output is the head's.
        value: The network of the values.
        layers: Of both.
        state: Where parameters, moments and gradient are meanwhile.
        plain: Parameters, means, squares and `most` as torch orders them; they are changed.
        spans: [n, 2]. From where to where in the state options hold.
        options: [n, 8]. Of Adam.
        step: How many steps it has made.
        loss: The loss.
        records: [minibatches, 11]. Gets a `StepRecord` for each.
    """
    moved = (state.parameters, state.means, state.squares, state.most)
    for n in range(4):
        if len(plain[n]):
            load(plain[n], moved[n], layers)
    vectors = np.empty((order.shape[1], rows.policy.shape[1]), rows.policy.dtype)
    others = np.empty((order.shape[1], rows.value.shape[1]), rows.policy.dtype)
    log_ratios, tried = np.empty(order.shape[1], rows.policy.dtype), 0
    for numbers in order:
        turn(policy)
        turn(value)
        sums = np.zeros(5)
        take(rows.policy, numbers, vectors)
        forward(vectors, policy)
        if rows.normal:
            k = rows.drawn.shape[1]
            log_std, d_log_std = state.parameters[-k:], state.gradient[-k:]
            rate_numbers(numbers, rows, policy, log_std, d_log_std, loss, log_ratios, sums)
        else:
            rate_choices(numbers, rows, policy, loss, log_ratios, sums)
        backward(vectors, policy)
        if len(rows.value):
            take(rows.value, numbers, others)
        its_vectors = others if len(rows.value) else vectors
        forward(its_vectors, value)
        rate_values(numbers, rows, value, loss, sums)
        backward(its_vectors, value)
        if not math.isfinite(sums[SURROGATE]):
            sums[SURROGATE] = bounded_surrogate(log_ratios, numbers, rows.targets, loss)
        length = norm(state.gradient)
        record(sums, len(numbers), length, loss, records[tried])
        tried += 1
        if records[tried - 1, -1] == 0:
            break
        scale = min(1.0, loss.max_grad_norm / (length + 1e-6))
        for n in range(len(spans)):
            a, b = spans[n]
            most = state.most[a:b]
            flat = state.parameters[a:b], state.gradient[a:b], state.means[a:b], state.squares[a:b]
            adam_step(options[n], step + tried, scale, *flat, most)
    for n in range(4):
        if len(plain[n]):
            store(moved[n], plain[n], layers)
    return tried


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
