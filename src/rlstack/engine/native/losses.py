"""Losses and their derivatives in machine code, as `rlstack.engine.kernels.heads` has them in operations."""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from ...distributions import slope_mixture
from .compiled import compiled
from .networks import OUTPUTS

OLD_LOGP, ADVANTAGE, CAP, FLOOR, RETURN, LOWEST, HIGHEST = range(7)
"""Of the targets of a row."""
SURROGATE, SQUARES, ENTROPY, KL_DIV, CLIPPED = range(5)
"""Sums over the rows of a minibatch."""

_WEIGHTS, _SCALES = (tuple(column) for column in slope_mixture())
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_SQRT_2_PI = math.sqrt(2 / math.pi)
_SQRT_HALF = math.sqrt(0.5)
_TWO_LOG_2 = 2 * math.log(2)


class Rows(NamedTuple):
    """What the optimizer steps learn from; R rows."""

    policy: Any
    """[R, size]. Encoded observations."""
    value: Any
    """[R, size]. The same, as the values are made from them."""
    drawn: Any
    """[R, k]. What was drawn: numbers, or whole numbers, which are choices."""
    targets: Any
    """[R, 7]."""
    allowed: Any
    """[R, k]. Which choices are allowed; [0, 0] if all are."""


@compiled
def rate(log_ratio, target, loss, sums):
    """Return minus the derivative of a row's policy loss by its log-probability, as `policy_gradient`."""
    ratio = math.exp(log_ratio)
    surrogate = ratio * target[ADVANTAGE]
    # Also where it is NaN: an infinite ratio of an advantage of 0.
    cut = not surrogate <= target[CAP] or (loss.dual_clip and surrogate <= target[FLOOR])
    sums[SURROGATE] += clip(surrogate, target, loss.dual_clip)
    sums[KL_DIV] += math.expm1(log_ratio) - log_ratio
    sums[CLIPPED] += abs(ratio - 1) > loss.clip_param
    return target.dtype.type(0) if cut else surrogate


@compiled
def clip(surrogate, target, dual_clip):
    """Return the surrogate of a row, by the rows of the minibatch, as `policy_loss` clips it."""
    clipped = target[CAP] if surrogate > target[CAP] else surrogate
    return target[FLOOR] if dual_clip and clipped < target[FLOOR] else clipped


def rate_actions(order: Any, total: Any, rows: Any, net: Any, loss: Any, log_ratios: Any, sums: Any) -> None:
    """Write the derivative by the output of the rows with these numbers, some of `total`.

    Only what rates choices becomes machine code, or only what rates numbers: which depends on their type.
    """
    raise NotImplementedError("machine code only")


@overload(rate_actions)
def _rate_actions(order, total, rows, net, loss, log_ratios, sums):
    drawn = dict(zip(rows.fields, rows.types, strict=True))["drawn"].dtype
    return _rate_choices if isinstance(drawn, types.Integer) else _rate_numbers


def _rate_choices(order, total, rows, net, loss, log_ratios, sums):
    """Write the derivative by the logits of the rows with these numbers, as `categorical_gradient`."""
    number, k = net.output.dtype.type, net.layers[-1][OUTPUTS]
    d_entropy = number(-loss.entropy_coeff / total)
    for n in range(len(order)):
        row, logits, p = order[n], net.output[n], net.d_output[n]
        if len(rows.allowed):
            for j in range(k):
                logits[j] = logits[j] if rows.allowed[row, j] else -np.inf
        top, whole, entropy = logits[0], number(0), number(0)
        for j in range(1, k):
            top = max(top, logits[j])
        for j in range(k):
            p[j] = math.exp(logits[j] - top)
            whole += p[j]
        shift = top + math.log(whole)
        for j in range(k):
            p[j] /= whole
            # Finite, so that 0 times it is 0.
            logits[j] = max(logits[j] - shift, number(-1e30))
            entropy -= p[j] * logits[j]
        choice = rows.drawn[row, 0]
        log_ratios[n] = logits[choice] - rows.targets[row, OLD_LOGP]
        d_logp = rate(log_ratios[n], rows.targets[row], loss, sums)
        for j in range(k):
            p[j] *= d_logp - d_entropy * (logits[j] + entropy)
        p[choice] -= d_logp
        sums[ENTROPY] += entropy


def _rate_numbers(order, total, rows, net, loss, log_ratios, sums):
    """Write the derivative by means and log std of the rows with these numbers, as `normal_gradient`."""
    number, k = net.output.dtype.type, rows.drawn.shape[1]
    log_std, d_log_std = net.parameters[-k:], net.gradient[-k:]
    d_entropy = number(-loss.entropy_coeff / total)
    std, z, share = np.empty(k, log_std.dtype), np.empty(k, log_std.dtype), number(k * _HALF_LOG_2PI)
    for j in range(k):
        std[j] = math.exp(log_std[j])
        share += log_std[j]
        d_log_std[j] += len(order) * d_entropy
    for n in range(len(order)):
        row, means, d_means = order[n], net.output[n], net.d_output[n]
        logp, entropy = -share, share + number(0.5 * k)
        for j in range(k):
            z[j] = (rows.drawn[row, j] - means[j]) / std[j]
            logp -= number(0.5) * z[j] * z[j]
        log_ratios[n] = logp - rows.targets[row, OLD_LOGP]
        d_logp = rate(log_ratios[n], rows.targets[row], loss, sums)
        for j in range(k):
            d_means[j] = -d_logp * z[j] / std[j]
            d_log_std[j] += d_logp - d_logp * z[j] * z[j]
        if loss.squash:
            for j in range(k):
                slope, by_mean, by_log_std = expected_slope(means[j], std[j])
                entropy += slope
                d_means[j] += d_entropy * by_mean
                d_log_std[j] += d_entropy * by_log_std
        sums[ENTROPY] += entropy


@compiled
def expected_slope(mean, std):
    """Return `expected_log_slope` of one number, and its derivatives by mean and log std."""
    number = type(mean)
    slope, by_mean, by_log_std = number(_TWO_LOG_2), number(0), number(0)
    for i in range(len(_WEIGHTS)):
        weight, scale = number(2 * _WEIGHTS[i]), number(_SCALES[i])
        spread = math.sqrt(std * std + scale * scale)
        ratio = mean * (number(_SQRT_HALF) / spread)
        erf, density = math.erf(ratio), math.exp(-ratio * ratio) * number(_SQRT_2_PI)
        slope -= weight * (mean * erf + density * spread)
        by_mean -= weight * erf
        by_log_std -= weight * (std * std / spread) * density
    return slope, by_mean, by_log_std


@compiled
def rate_values(order, total, rows, net, loss, sums):
    """Write the derivative by the values of the rows with these numbers, as `value_gradient`."""
    number = net.output.dtype.type
    weight = number(loss.vf_coeff / total)
    for n in range(len(order)):
        target = rows.targets[order[n]]
        error = net.output[n, 0] - target[RETURN]
        larger = error
        if loss.vf_clip:
            bounded = error if error > target[LOWEST] else target[LOWEST]
            bounded = bounded if bounded < target[HIGHEST] else target[HIGHEST]
            larger = error if abs(bounded) <= abs(error) else bounded
        sums[SQUARES] += larger * larger
        net.d_output[n, 0] = weight * error if larger == error else number(0)
