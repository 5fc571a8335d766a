"""Names of the statistics, each in this one place."""

import posixpath
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from .validation import is_number

EPISODES = "episodes"

EPISODE_STATS = (
    f"{EPISODES}/count",
    *(f"{EPISODES}/returns/{name}" for name in ("mean", "std", "min", "max")),
    f"{EPISODES}/lengths/mean",
)
"""Of the episodes that ended in an update; all but their count, the first, are absent where none did."""

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

ENV: Final = "env/"
"""What the names of an environment's own metrics begin with."""

ENV_OWN: Final = (ENV_STEPS, ENV_RESETS, ENV_TOTAL_STEPS)
"""Names that begin so and are taken."""

_NAME: Final = re.compile(r"[/\w.\- :]+")

_LONGEST_NAME: Final = 250


@lru_cache(maxsize=1024)
def name_fault(name: object) -> str | None:
    """Return what is wrong with a statistic's name, as the end of a sentence; None if MLflow takes it."""
    if not isinstance(name, str):
        return f"is of type {type(name).__name__}, expected str"
    if len(name) > _LONGEST_NAME:
        return f"has {len(name)} characters, MLflow takes {_LONGEST_NAME}"
    if not _NAME.fullmatch(name) or posixpath.normpath(name) != name or name.startswith(("/", "..")):
        return "is no name that MLflow takes: use letters, digits, spaces, _ - . : and single / in between"
    return None


def value_fault(value: object) -> str | None:
    """Return what is wrong with a statistic's value, as the end of a sentence; None if it is a number."""
    if isinstance(value, Tensor):
        if value.dim() == 0 and not value.is_complex():
            return None
        return (
            f"is a tensor of shape {list(value.shape)} and dtype {value.dtype}, expected a number, or a "
            "tensor of one without dimensions: take its mean, for example"
        )
    if is_number(value) or isinstance(value, bool | np.bool_):
        return None
    return f"is {value!r:.80}, expected a number, or a tensor of one without dimensions"


def refine(stats: dict[str, Any]) -> list[str]:
    """Make Python's floats of all values, whoever added them; leave out what can't be one, and return why."""
    faults = []
    for name, value in list(stats.items()):
        fault = name_fault(name) or (None if type(value) is float else value_fault(value))
        if fault is None:
            stats[name] = float(value)
        else:
            del stats[name]
            faults.append(f"stats[{name!r:.80}] {fault}")
    return faults


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
