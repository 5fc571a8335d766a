"""Names of the statistics, each in this one place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

EPISODES = "episodes"

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
    "lr": "coefficients/lr",
}
"""What is known of an update, fields of `PPOLoss` among it, and the names of their statistics."""

ENV_STEPS = "env/steps"

ENV_RESETS = "env/resets"

ENV_TOTAL_STEPS = "env/total_steps"
"""Transitions of all environments since the beginning: what conditions, schedules and MLflow count by."""


def reward_stats(rewards: Tensor, counted: Tensor | None = None) -> dict[str, Tensor]:
    """Return `returns/…`, of the sums over a horizon, and `rewards/…`, of single steps: each a scalar.

    Args:
        rewards: [T, B, 1], float64.
        counted: [T, B, 1], bool. Whose steps count; None counts all.
    """
    sums = rewards.sum(0) if counted is None else rewards.where(counted, 0.0).sum(0)
    return {**summarize("returns", sums), **summarize("rewards", rewards, counted)}


def summarize(group: str, values: Tensor, counted: Tensor | None = None) -> dict[str, Tensor]:
    """Return smallest, largest, mean and standard deviation of values, each a scalar.

    Args:
        group: What their names begin with.
        values: Numbers.
        counted: Which of them count, bool of the same shape; None counts all.
    """
    if counted is None:
        low, high, mean, std = values.min(), values.max(), values.mean(), values.std(correction=0)
    else:
        number = counted.sum()
        mean = values.where(counted, 0.0).sum() / number
        std = ((values - mean).where(counted, 0.0).square().sum() / number).sqrt()
        low, high = values.where(counted, torch.inf).min(), values.where(counted, -torch.inf).max()
    found = {"min": low, "max": high, "mean": mean, "std": std}
    return {f"{group}/{name}": value for name, value in found.items()}


def read_back(values: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return tensors as numbers, or lists of them, by name; the device is waited for once."""
    flat = torch.cat([value.flatten().to(torch.float64) for value in values.values()]).cpu()
    parts = flat.split([value.numel() for value in values.values()])
    return {
        name: part.view(value.shape).tolist()
        for (name, value), part in zip(values.items(), parts, strict=True)
    }
