"""Who puts back simulations whose episodes end, and what is known of their last observations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from ...common.errors import EnvError
from ...common.types import Batch
from ...common.validation import did_you_mean
from ..ending import FINAL_OBS, TERMINATED, TRUNCATED, VALID
from .spaces import Branch, Leaf, as_tensor

DISABLED, SAME_STEP, NEXT_STEP = "disabled", "same_step", "next_step"

MODES = (DISABLED, SAME_STEP, NEXT_STEP)
"""Gymnasium's names. Who puts rows back: whoever steps, the step in which they end, the step after it."""

_FINAL = ("final_obs", "final_observation")
"""Keys of last observations, since Gymnasium 1.1 and before."""


def mode_of(vector: Any, said: str | None, name: str) -> str:
    """Return how a vector environment puts rows back.

    Args:
        vector: The vector environment.
        said: What its user says, if anything.
        name: What to call it in an error.

    Raises:
        EnvError: If that isn't known.
    """
    mode = said
    if mode is None:
        told = (getattr(vector, "metadata", None) or {}).get("autoreset_mode")
        mode = None if told is None else getattr(told, "name", str(told))
    if mode is None and is_envpool(vector):
        return NEXT_STEP
    if mode is None:
        raise EnvError(
            f'{name}: there is no metadata["autoreset_mode"], so that nobody knows when rows that ended are '
            f"put back: say it, from_vector(..., autoreset=…), one of {', '.join(map(repr, MODES))}"
        )
    plain = mode.lower().replace("_", "")
    found = next((known for known in MODES if known.replace("_", "") == plain), None)
    if found is None:
        raise EnvError(f"{name}: autoreset is {mode}{did_you_mean(mode, MODES)}")
    return found


def is_envpool(vector: Any) -> bool:
    """Return whether a vector environment is EnvPool's: it is seeded when made, and always resets itself."""
    return any(cls.__module__.partition(".")[0] == "envpool" for cls in type(vector).__mro__)


class Moment(NamedTuple):
    """What one step returned, as tensors."""

    obs: Batch
    """[B, ...]"""
    terminated: Tensor
    """[B, 1], bool."""
    truncated: Tensor
    """[B, 1], bool."""
    infos: Any

    @property
    def ended(self) -> Tensor:
        """[B, 1], bool."""
        return self.terminated | self.truncated


Said = dict[str, Any]
"""What a step of rlstack's returns, by key."""


def put_back(moment: Moment, reset: Callable[[Tensor], Batch]) -> tuple[Batch, Said]:
    """Return observations after a step and what it says, where rows that ended are ours to put back.

    Args:
        moment: The step.
        reset: Resets the rows that are True in [B], and returns all observations.
    """
    obs, ended = moment.obs, moment.ended
    if ended.any():
        obs = _where(ended.squeeze(-1), reset(ended.squeeze(-1)), obs)
    return obs, {TERMINATED: moment.terminated, TRUNCATED: moment.truncated, FINAL_OBS: moment.obs}


def same_step(moment: Moment, layout: Leaf | Branch, name: str) -> tuple[Batch, Said]:
    """Return observations after a step and what it says, where it has put back the rows that ended.

    Args:
        moment: The step.
        layout: Of the observations.
        name: What to call the environment in an error.

    Raises:
        EnvError: If rows ended and their last observations aren't there.
    """
    obs, infos = moment.obs, moment.infos
    said: Said = {TERMINATED: moment.terminated, TRUNCATED: moment.truncated}
    key = next((key for key in _FINAL if key in infos), None)
    device, rows = moment.terminated.device, len(moment.terminated)
    if key is None:
        if moment.ended.any():
            raise EnvError(
                f'{name} puts back rows that ended without infos["final_obs"], their last observations: let '
                "it return them, or say from_vector(..., final_obs=False), and values of the observations "
                "before stand for theirs"
            )
        return obs, {**said, FINAL_OBS: obs}
    final = infos[key]
    if not (isinstance(final, np.ndarray) and final.dtype == object):
        return obs, {
            **said,
            FINAL_OBS: _where(moment.ended.squeeze(-1), layout.read(final, device, rows), obs),
        }
    # An array of objects: one observation for each row that ended, None for the others.
    index = [row for row, value in enumerate(final) if value is not None]
    last = obs.clone()
    last[torch.tensor(index, device=device)] = layout.read(
        layout.stack([final[row] for row in index]), device, len(index)
    )
    return obs, {**said, FINAL_OBS: last}


def next_step(moment: Moment, before: Tensor) -> tuple[Batch, Said]:
    """Return observations after a step and what it says, where the step after an ending only resets.

    Args:
        moment: The step.
        before: [B, 1], bool. Whose episode ended with the step before.
    """
    flags = {TERMINATED: moment.terminated & ~before, TRUNCATED: moment.truncated & ~before}
    return moment.obs, {**flags, FINAL_OBS: moment.obs, VALID: ~before}


def flag(value: Any, device: torch.device) -> Tensor:
    """Return which rows are True, [B, 1], of an array [B] or [B, 1] of whatever dtype."""
    return as_tensor(value, device).bool().reshape(-1, 1)


def _where(rows: Tensor, one: Any, other: Any) -> Batch:
    """Return the rows of one batch that are True in [B], and the others of the other one."""
    if isinstance(one, Tensor):
        return torch.where(rows.reshape(-1, *[1] * (one.dim() - 1)), one, other)
    parts = {key: _where(rows, value, other[key]) for key, value in one.items()}
    return TensorDict(parts, batch_size=len(rows), device=rows.device)
