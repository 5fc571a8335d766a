"""Steps of Adam in machine code."""

import math

from .compiled import compiled, summing

LR, BETA1, BETA2, WEIGHT_DECAY, EPS, MAXIMIZE, DECOUPLED, AMSGRAD = range(8)
"""Of the options."""


@compiled
def adam_step(options, step, scale, parameters, gradient, means, squares, most):
    """Make a step of Adam, the `step`-th, with `scale` times the gradient; arrays are flat.

    Options are those of torch.optim.Adam and AdamW, as named above; `most` is used with AMSGRAD alone.
    """
    number = parameters.dtype.type
    one, zero, decay, decoupled = number(1), number(0), options[WEIGHT_DECAY], options[DECOUPLED] != 0
    keep, pull = (number(1 - options[LR] * decay), zero) if decoupled else (one, number(decay))
    sign = number(-scale if options[MAXIMIZE] != 0 else scale)
    beta1, beta2 = number(options[BETA1]), number(options[BETA2])
    for i in range(len(parameters)):
        slope = sign * gradient[i] + pull * parameters[i]
        means[i] = beta1 * means[i] + (one - beta1) * slope
        squares[i] = beta2 * squares[i] + (one - beta2) * slope * slope
    if options[AMSGRAD] != 0:
        for i in range(len(parameters)):
            most[i] = max(most[i], squares[i])
        squares = most
    rate = number(options[LR] / (1 - options[BETA1] ** step))
    root, eps = number(1 / math.sqrt(1 - options[BETA2] ** step)), number(options[EPS])
    for i in range(len(parameters)):
        parameters[i] = keep * parameters[i] - rate * means[i] / (math.sqrt(squares[i]) * root + eps)


@summing
def norm(numbers):
    """Return the square root of the sum of the squares."""
    total = 0.0
    for start in range(0, len(numbers), 1024):
        part, sum_of_part = numbers[start : start + 1024], numbers.dtype.type(0)
        for i in range(len(part)):
            sum_of_part += part[i] * part[i]
        total += sum_of_part
    return math.sqrt(total)
