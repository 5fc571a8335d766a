"""Where and how to compute: the device, its precision, and how much at a time."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch

from .data import Device
from .hparams import Hparams, HparamsError

Scope: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""Makes the context in which the policy's model runs."""


def resolve_device(device: Device) -> torch.device:
    """Return the device that a hyperparameter names; `auto` is CUDA if there is one, else the CPU.

    Raises:
        HparamsError: If there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = torch.device("meta")
    if resolved.type not in ("cpu", "cuda"):
        raise HparamsError(f"device is {str(device)!r}, expected auto, cpu or cuda")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise HparamsError(f"device is {str(device)!r}, but torch finds no CUDA device here: use auto or cpu")
    return resolved


def precision_scope(hparams: Hparams, device: torch.device) -> Scope:
    """Return what makes the context for the model: 16-bit autocast if asked for, else nothing."""
    if not hparams.enable_amp:
        return nullcontext
    dtype = amp_dtype(device)
    # No cache: a weight cast before an optimizer step would be stale after it.
    return lambda: torch.autocast(device.type, dtype, cache_enabled=False)


def amp_dtype(device: torch.device) -> torch.dtype:
    """Return float16 for a GPU that only emulates bfloat16, else bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16
