"""Other people's simulators: the random numbers that they draw, and what they print."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, final

import torch

_SEEDS = 2**31 - 1
"""All seeds are smaller."""


@final
class Held:
    """Holds a simulator where no recording looks for tensors: those of a simulator can't be put back.

    Args:
        value: The simulator.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def draw_seed(counted: int = 0) -> int:
    """Return a seed for a simulator, drawn by torch, so that its runs follow from torch's seed.

    Args:
        counted: How far the simulator counts up from it, where each of its rows has a seed.
    """
    return int(torch.randint(_SEEDS - counted, ()))


def device_name(device: torch.device) -> str:
    """Return a device as simulators name it: "cpu", or a GPU with its number."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


@contextlib.contextmanager
def torch_as_before(device: torch.device) -> Iterator[None]:
    """Put torch's generators back afterwards, those of the CPU and a device: simulators seed them."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextlib.contextmanager
def prints_aside() -> Iterator[None]:
    """Let what a simulator prints go where errors go: a program may read what rlstack prints."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
