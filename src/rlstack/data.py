"""Names and types that every part of rlstack shares, each in this one place.

Shapes are written with these letters throughout: `B` parallel environments, `T` steps of one horizon,
`N` rows (or sequences) of a minibatch, `L` steps of one sequence, `*A` the shape of an action.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

Batch: TypeAlias = Tensor | TensorDict
"""Observations, actions or states: one tensor, or a (nested) TensorDict of them."""

Config: TypeAlias = Mapping[str, Any]
"""Options of an environment, a model or an optimizer, by name."""

Device: TypeAlias = str | torch.device

Stats: TypeAlias = dict[str, float]
"""Statistics by name, `group/name`, as Python floats."""

OBS = "obs"
"""Key of the observations in what `Env.step` returns."""
REWARDS = "rewards"
"""Key of the rewards in what `Env.step` returns."""

LOGITS = "logits"
"""Feature read by `Categorical`."""
MEAN = "mean"
LOG_STD = "log_std"
"""Features read by `Normal` and `SquashedNormal`."""

BOOTSTRAP_GAP = "monitors/bootstrap_gap"
UPDATE_STATS = {
    "total": "losses/total",
    "policy": "losses/policy",
    "vf": "losses/vf",
    "entropy": "losses/entropy",
    "kl_div": "monitors/kl_div",
    "clip_fraction": "monitors/clip_fraction",
    "grad_norm": "monitors/grad_norm",
    "explained_variance": "monitors/explained_variance",
    "bootstrap_gap": BOOTSTRAP_GAP,
}
"""What is known of an update: fields of `rlstack.ppo.PPOLoss` and more, and the names of their statistics."""
ENV_STEPS = "env/steps"
ENV_RESETS = "env/resets"
ENV_TOTAL_STEPS = "env/total_steps"
"""Transitions of all environments since the beginning: what conditions, schedules and MLflow count by."""


class PolicyStep(NamedTuple):
    """What a policy does with one observation of each environment."""

    actions: Any
    """[B, *A]. Actions as the environment takes them, a tensor or a TensorDict."""
    logp: Tensor
    """[B, 1]. Log-probability (or log-density) of what was drawn."""
    values: Tensor
    """[B, 1]. Estimated discounted return from here on, in units of scaled rewards."""
    state: TensorDict | None
    """[B, ...]. State to hand to the next call; None for a feedforward policy."""
    drawn: Any
    """[B, *A]. What the distribution drew, before it was squashed or clipped; `evaluate` takes it."""


class Evaluation(NamedTuple):
    """What a policy says of actions that were taken, with gradients."""

    logp: Tensor
    """[N · L, 1]. Log-probability (or log-density) of the actions."""
    values: Tensor
    """[N · L, 1]. Values of the observations."""
    entropy: Tensor
    """[N · L, 1]. Entropy of the action distribution."""


def reward_stats(rewards: Tensor) -> dict[str, Tensor]:
    """Return `returns/…`, of the sums over a horizon, and `rewards/…`, of single steps: each a scalar.

    Args:
        rewards: [T, B, 1], float64.
    """
    return {**_summarize("returns", rewards.sum(0)), **_summarize("rewards", rewards)}


def _summarize(group: str, values: Tensor) -> dict[str, Tensor]:
    found = {
        "min": values.min(),
        "max": values.max(),
        "mean": values.mean(),
        "std": values.std(correction=0),
    }
    return {f"{group}/{name}": value for name, value in found.items()}


def read_back(values: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return tensors as numbers, or lists of them, by name; the device is waited for once."""
    flat = torch.cat([value.flatten().to(torch.float64) for value in values.values()]).cpu()
    parts = flat.split([value.numel() for value in values.values()])
    return {
        name: part.view(value.shape).tolist()
        for (name, value), part in zip(values.items(), parts, strict=True)
    }


def is_number(value: object) -> bool:
    """Return whether a value is a real number, Python's or NumPy's: True and False aren't."""
    return isinstance(value, Real) and not isinstance(value, bool)


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


class NonFiniteError(ArithmeticError):
    """Data, a loss or a gradient is NaN or infinite; the policy was not updated with it."""
