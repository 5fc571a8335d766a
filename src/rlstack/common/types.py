"""Names and types that every part of rlstack shares, each in this one place.

Shapes are written with these letters throughout: `B` parallel environments, `T` steps of one horizon,
`N` rows (or sequences) of a minibatch, `L` steps of one sequence, `*A` the shape of an action.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

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
"""Feature read by distributions of discrete actions."""

MEAN = "mean"

LOG_STD = "log_std"
"""Features read by `Normal` and `SquashedNormal`."""


class PolicyStep(NamedTuple):
    """What a policy does with one observation of each environment."""

    actions: Any
    """[B, *A]. Actions as the environment takes them, a tensor or a TensorDict."""
    logp: Tensor
    """[B, 1]. Log-probability (or log-density) of what was drawn."""
    values: Tensor | None
    """[B, 1]. Estimated discounted return from here on, in units of scaled rewards; None where only the
    policy's part of the observations was there."""
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
