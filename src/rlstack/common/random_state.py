"""Random states: read, kept and put back."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def keep_random_state(device: torch.device) -> Iterator[None]:
    """Put all generators that training may draw from back afterwards."""
    before = random_state(device)
    try:
        yield
    finally:
        set_random_state(before, device)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of all generators that training may draw from: torch's, NumPy's and Python's."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return {**state, "numpy": np.random.get_state(), "python": random.getstate()}  # noqa: NPY002 (the global one)


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Set all generators as `random_state` found them."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])
