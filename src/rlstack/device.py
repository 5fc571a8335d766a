"""Where and how to compute: the device, its precision, and how much at a time."""

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeAlias

import psutil
import torch

from .data import Device, Stats
from .hparams import Hparams, HparamsError

_log = logging.getLogger(__name__)

_BYTES_PER_ROW = 2**19
"""Of a GPU's memory, for one row of a block: 32 times what the default model takes."""

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}

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


def reads_wait(device: torch.device) -> bool:
    """Return whether to read a number from a device means to wait for all that it was given to do."""
    return device.type != "cpu"


def can_record(device: torch.device) -> bool:
    """Return whether what a device does can be recorded and replayed."""
    return device.type == "cuda"


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


@contextmanager
def memory_advice(hparams: Hparams, phase: str) -> Iterator[None]:
    """Say what to change, and by how much, if a GPU's memory is too small.

    Args:
        hparams: What may be changed.
        phase: `collect` or `step`.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        match = re.search(
            r"Tried to allocate ([\d.]+) ([KMG])iB.*?of which ([\d.]+) ([KMG])iB is free", str(error), re.S
        )
        factor = 2
        if match is not None:
            wanted, free = (float(match[i]) * _UNITS[match[i + 1]] for i in (1, 3))
            factor = 2 ** max(1, math.ceil(math.log2(max(wanted, 1.0) / max(free, wanted / 64))))
        names = ["num_envs", "horizon"] if phase == "collect" else ["grad_block_size", "num_envs", "horizon"]
        ways = [f"{name}={max(1, getattr(hparams, name) // factor)}" for name in names]
        if not hparams.enable_amp:
            ways.append("enable_amp=True, which halves activations")
        raise torch.OutOfMemoryError(
            f"the GPU's memory is too small for {phase}(): try {', or '.join(ways)} ({error})"
        ) from error


def amp_dtype(device: torch.device) -> torch.dtype:
    """Return float16 for a GPU that only emulates bfloat16, else bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def default_rows(device: torch.device) -> int:
    """Return how many rows to compute at a time with any model.

    On a CPU as many as keep activations in its cache, on a GPU as many as leave most of its memory free.
    """
    if device.type == "cpu":
        return 2048
    return max(2**14, torch.cuda.get_device_properties(device).total_memory // _BYTES_PER_ROW)


def memory_stats(device: torch.device) -> Stats:
    """Return free and total memory of the device, bytes, and the share in use, percent."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
    else:
        memory = psutil.virtual_memory()
        free, total = memory.available, memory.total
    return {
        "memory/free": float(free),
        "memory/total": float(total),
        "memory/percent": 100 * (1 - free / total),
    }


def system_stats(device: torch.device) -> Stats:
    """Return what the machine is busy with, under the names that MLflow's pages show as system metrics."""
    memory, network = psutil.virtual_memory(), psutil.net_io_counters()
    stats = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
    }
    if network is not None:
        stats["system/network_receive_megabytes"] = network.bytes_recv / 1e6
        stats["system/network_transmit_megabytes"] = network.bytes_sent / 1e6
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        prefix = f"system/gpu_{device.index or 0}_"
        stats[f"{prefix}memory_usage_megabytes"] = (total - free) / 1e6
        stats[f"{prefix}memory_usage_percentage"] = 100 * (1 - free / total)
        # torch asks NVIDIA's library, which needs a package of its own.
        with suppress(ModuleNotFoundError):
            stats[f"{prefix}utilization_percentage"] = float(torch.cuda.utilization(device))
    return stats
