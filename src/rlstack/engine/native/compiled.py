"""How functions become machine code."""

from typing import Any

from numba import njit

OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}, "nogil": True}
"""NaN and infinity stay what they are; products may be added unrounded."""
_PART: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}
"""Inlined: a name that is linked is that of the function loaded first, which may round otherwise."""

compiled: Any = njit(**OPTIONS, **_PART)
summing: Any = njit(**(OPTIONS | {"fastmath": {"contract", "nsz", "reassoc"}}), **_PART)
"""Sums in any order: `x - x` may be 0 here for NaN as well."""
inlined: Any = njit(**OPTIONS, inline="always")
