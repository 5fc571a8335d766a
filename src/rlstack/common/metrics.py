"""Names of the statistics, each in this one place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

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
"""What is known of an update, fields of `PPOLoss` among it, and the names of their statistics."""

ENV_STEPS = "env/steps"

ENV_RESETS = "env/resets"

ENV_TOTAL_STEPS = "env/total_steps"
"""Transitions of all environments since the beginning: what conditions, schedules and MLflow count by."""


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
