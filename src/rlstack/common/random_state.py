"""Random states: read, kept and put back."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(seed: int | None, rank: int = 0) -> None:
    """Seed torch's generators; None leaves those of rank 0 as they are.

    Args:
        seed: The same on all ranks.
        rank: Each has random numbers of its own.
    """
    if rank:
        # Neighboring seeds are those of other runs.
        text = f"{torch.initial_seed() if seed is None else seed}/{rank}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    if seed is not None:
        torch.manual_seed(seed)


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
