"""Where and how to compute: the device, its precision, and how much at a time."""

import logging
import os
import sys

import torch

from .errors import HparamsError
from .types import Device

_log = logging.getLogger(__name__)


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


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class one_thread:  # noqa: N801 (a context manager by the name of what it does)
    """A context in which torch computes on the calling thread alone.

    Its threads wait for work in a busy loop after each operation, on cores that others need.
    """

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        if self._before > 1:
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        if self._before > 1:
            torch.set_num_threads(self._before)
