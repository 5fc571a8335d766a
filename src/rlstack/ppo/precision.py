"""In what precision to compute."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeAlias

import torch

from ..common.device import _log
from ..hparams import Hparams

Scope: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""Makes the context in which the policy's model runs."""


def autocast_scope(hparams: Hparams, device: torch.device) -> Scope:
    """Return what makes the context for the model: 16-bit autocast if asked for, else nothing."""
    if not hparams.enable_amp:
        return nullcontext
    dtype = amp_dtype(device)
    # No cache: a weight cast before an optimizer step would be stale after it.
    return lambda: torch.autocast(device.type, dtype, cache_enabled=False)


def without_emulation(hparams: Hparams, device: torch.device) -> Hparams:
    """Return the hyperparameters without `enable_amp` where a CPU only emulates 16-bit arithmetic.

    That is some thirty times slower than float32, and LSTMs can't be emulated at all.
    """
    if not hparams.enable_amp or device.type != "cpu" or has_half():
        return hparams
    _log.warning("enable_amp: this CPU has no 16-bit arithmetic, the model is run in float32")
    return replace(hparams, enable_amp=False)


def has_half() -> bool:
    """Return whether this CPU computes in 16 bits by itself."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def matmul_scope(hparams: Hparams, device: torch.device) -> Scope:
    """Return what makes the context in which float32 matrices are multiplied as precisely as asked for."""
    if device.type != "cuda":
        return nullcontext
    precision = "tf32" if hparams.matmul_precision == "high" else "ieee"
    return lambda: _fp32_precision(precision)


@contextmanager
def _fp32_precision(precision: str) -> Iterator[None]:
    """Set the precision of CUDA's matrix products and recurrent networks, and put it back as it was."""
    places: Any = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = precision
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def amp_dtype(device: torch.device) -> torch.dtype:
    """Return float16 for a GPU that only emulates bfloat16, else bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16
