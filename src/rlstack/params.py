"""What an algorithm computes with, as short texts for people and trackers."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import torch

from . import nested
from .hparams import Hparams
from .policies import Policy, RecurrentPolicy
from .policy_file import uncompiled


def describe_params(
    hparams: Hparams, policy: Policy | RecurrentPolicy, optimizer: torch.optim.Optimizer, **others: object
) -> dict[str, str]:
    """Return the hyperparameters in use, all defaults resolved, as short texts by dotted name.

    Args:
        hparams: The hyperparameters.
        policy: What they made of model and distribution.
        optimizer: What they made of the optimizer.
        others: Whatever else belongs to them.
    """
    values: dict[str, Any] = {
        name: value for name, value in vars(hparams).items() if not name.startswith("_") and name != "model"
    }
    values["model_cls"] = type(uncompiled(policy.model))
    values["model_config"] = policy.model.config
    values["distribution_cls"] = policy.distribution_cls
    defaults = optimizer.defaults.items()
    values["optimizer_config"] = {k: float(v) if isinstance(v, torch.Tensor) else v for k, v in defaults}
    return flatten(values | others)


def flatten(values: Mapping[str, Any]) -> dict[str, str]:
    """Return nested values as one level of dotted names and short texts, for tracking."""
    return {name: _short(value) for name, value in nested.flatten(values).items()}


def _short(value: Any) -> str:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, torch.nn.Module) or is_dataclass(value):
        return type(value).__qualname__
    return str(value)
