"""tanh in vector instructions, where numba's own is a call for each number."""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent, in float32 to 4e-7."""
    raise NotImplementedError("machine code only")


@overload(tanh, inline="always")
def _tanh(x: Any) -> Any:
    return _tanh32 if x == types.float32 else _tanh64


def _tanh32(x: Any) -> Any:
    # x P(x²) / Q(x²), fitted for the smallest relative error up to 9, where tanh is 1. NaN stays NaN.
    most = np.float32(9.0)
    y = most if x > most else -most if x < -most else x
    u = y * y
    p = np.float32(2.048105210055067e-05) + u * np.float32(1.3177359488014995e-08)
    p = np.float32(0.0034878020523455046) + u * p
    p = np.float32(0.1337446730527483) + u * p
    p = np.float32(0.999999977101804) + u * p
    q = np.float32(0.0003272906067296151) + u * np.float32(7.703974527925008e-07)
    q = np.float32(0.02584735342687406) + u * q
    q = np.float32(0.467077810608407) + u * q
    q = np.float32(1.0) + u * q
    return y * p / q


def _tanh64(x: Any) -> Any:
    return math.tanh(x)
