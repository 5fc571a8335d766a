"""What an algorithm computes with, as short texts for people and trackers."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

import torch

from ..common.nested import flatten
from ..common.public_names import public_name
from ..hparams import Hparams
from ..policies.file import uncompiled
from ..policies.policy import Policy, RecurrentPolicy
from .optimizers import options_of_parts


def with_simulator_options(hparams: Hparams, env_cls: Any) -> Hparams:
    """Return the hyperparameters with the options of a simulator's class, which its name doesn't have."""
    if options := getattr(env_cls, "simulator_options", None):
        return replace(hparams, env_config={**options, **(hparams.env_config or {})})
    return hparams


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
    values["optimizer_config"] = {
        **{key: float(value) if isinstance(value, torch.Tensor) else value for key, value in defaults},
        **options_of_parts(hparams),
    }
    return texts(values | others)


def said_of(name: str, params: Mapping[str, str], hparams: Hparams, policy: Policy | RecurrentPolicy) -> str:
    """Return what an algorithm is made of, in a few lines.

    Args:
        name: Of its class.
        params: What `describe_params` returned, with `env`, `engine` and `device`.
        hparams: The hyperparameters.
        policy: The policy.
    """
    resets = hparams.horizons_per_env_reset
    reset = "reset once" if resets == -1 else f"reset every {resets * hparams.horizon} steps"
    size = sum(parameter.numel() for parameter in policy.parameters())
    model, distribution = type(uncompiled(policy.model)).__name__, policy.distribution_cls.__name__
    return (
        f"{name}(\n  {params['env']}: {hparams.num_envs:,} environments, horizon {hparams.horizon}, {reset}\n"
        f"  {model} with {size:,} parameters, actions {distribution}\n"
        f"  {params['engine']} on {params['device']}\n)"
    )


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return nested values as one level of dotted names and short texts.

    A value has one text in every process, and the same after it has been in a file: `(1, 2)` is `[1, 2]`, a
    class or function its dotted name, and no text has an address in memory.
    """
    return {name: _text(value) for name, value in flatten(values).items()}


def _text(value: Any) -> str:
    match value:
        case bool():
            return str(value)
        case int():
            return int.__repr__(value)
        case float():
            return float.__repr__(value)
        case str():
            # That of a text enum's member is its value.
            return str.__str__(value)
        case list() | tuple():
            return f"[{', '.join(map(_part, value))}]"
        case set() | frozenset():
            return f"{{{', '.join(sorted(map(_part, value)))}}}"
        case Mapping():
            return f"{{{', '.join(f'{_part(key)}: {_part(part)}' for key, part in value.items())}}}"
        case torch.nn.Module():
            return type(value).__qualname__
    if isinstance(value, type) or inspect.isfunction(value):
        return public_name(value)
    if is_dataclass(value):
        return type(value).__qualname__
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


def _part(value: Any) -> str:
    return repr(str.__str__(value)) if isinstance(value, str) else _text(value)
