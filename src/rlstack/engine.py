"""How the device computes: precision, and how much at a time."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch

from .hparams import Hparams

Scope: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""Makes the context in which the policy's model runs."""


def precision_scope(hparams: Hparams, device: torch.device) -> Scope:
    """Return what makes the context for the model: 16-bit autocast if asked for, else nothing."""
    if not hparams.enable_amp:
        return nullcontext
    dtype = amp_dtype(device)
    # No cache: a weight cast before an optimizer step would be stale after it.
    return lambda: torch.autocast(device.type, dtype, cache_enabled=False)


def amp_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device computes with it, else float16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def default_block_size(device: torch.device) -> int:
    """Return how many rows to compute at a time: on a CPU as many as keep their activations in its cache."""
    return 2048 if device.type == "cpu" else 65536
