"""How much to compute at a time, and what to do if memory runs out."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..hparams import Hparams

_BYTES_PER_ROW = 2**19
"""Of a GPU's memory, for one row of a block: 32 times what the default model takes."""

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


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


def default_rows(device: torch.device) -> int:
    """Return how many rows to compute at a time with any model.

    On a CPU as many as keep activations in its cache, on a GPU as many as leave most of its memory free.
    """
    if device.type == "cpu":
        return 2048
    return max(2**14, torch.cuda.get_device_properties(device).total_memory // _BYTES_PER_ROW)
