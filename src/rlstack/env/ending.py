"""Where episodes end: what a step may say of single simulations, and its check at the border."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import specs
from ..common.errors import EnvError
from ..common.serialization import detached
from ..common.types import OBS, REWARDS

TERMINATED, TRUNCATED, FINAL_OBS, VALID = "terminated", "truncated", "final_obs", "valid"

FLAGS = (TERMINATED, TRUNCATED, VALID)

_STEP_ONLY = 2
"""How many keys a step has that says nothing of endings."""


class Ending(NamedTuple):
    """What a step says of single simulations beside observations and rewards; None is what it doesn't say."""

    terminated: Tensor | None
    """[B, 1], bool. Whose episode has come to its end: nothing comes after it."""
    truncated: Tensor | None
    """[B, 1], bool. Whose episode is broken off, by a time limit for example: it would have gone on."""
    final_obs: Any
    """[B, ...]. Observations after the step, before the environment put back the rows that ended; the other
    rows may hold anything."""
    valid: Tensor | None
    """[B, 1], bool. Whose step was a real transition."""

    @property
    def keys(self) -> tuple[str, ...]:
        """What it says."""
        return tuple(name for name, value in zip(self._fields, self, strict=True) if value is not None)

    @property
    def episode_ended(self) -> Tensor:
        """[B, 1], bool. Whose episode ends with the step."""
        flags = [flag for flag in (self.terminated, self.truncated) if flag is not None]
        if not flags:
            assert self.valid is not None
            return torch.zeros_like(self.valid)
        ended = flags[0] if len(flags) == 1 else flags[0] | flags[1]
        return ended if self.valid is None else ended & self.valid

    @property
    def cut(self) -> Tensor:
        """[B, 1], bool. Where what comes after the step has nothing to do with it."""
        return self.episode_ended if self.valid is None else self.episode_ended | ~self.valid


def read_ending(
    out: Any, where: str, num_envs: int, device: torch.device, spec: specs.TensorSpec
) -> Ending | None:
    """Return what a step says of endings, its form checked; None if nothing.

    Args:
        out: What the step returned, `obs` and `rewards` among it.
        where: Which step it was, for the error.
        num_envs: B.
        device: Where its tensors must be.
        spec: What one observation must be.

    Raises:
        EnvError: If it isn't of the form that is expected.
    """
    keys = out.keys()
    if len(keys) == _STEP_ONLY or not any(name in keys for name in FLAGS):
        return None
    flags = {name: out[name] if name in keys else None for name in FLAGS}
    for name, flag in flags.items():
        if flag is not None and (problem := specs.mismatch(flag, _flag_spec(), num_envs, name, device)):
            raise EnvError(f"{where}: {problem}")
    final_obs = out[FINAL_OBS] if FINAL_OBS in keys else None
    if final_obs is not None and (problem := specs.mismatch(final_obs, spec, num_envs, FINAL_OBS, device)):
        raise EnvError(f"{where}: {problem}")
    return Ending(flags[TERMINATED], flags[TRUNCATED], detached(final_obs), flags[VALID])


def copied(ending: Ending | None) -> Ending | None:
    """Return a copy: the environment may go on writing into what it returned."""
    return ending and Ending(*(None if part is None else part.clone() for part in ending))


def check_keys(now: Ending | None, first: tuple[str, ...], where: str) -> None:
    """Refuse a step that says other things of endings than the first one did.

    Raises:
        EnvError: If it does.
    """
    keys = () if now is None else now.keys
    if keys != first:
        other = min({*keys} ^ {*first})
        has, had = ("returned", "didn't") if other in keys else ("didn't return", "did")
        raise EnvError(
            f"{where} {has} {other}, and the first step {had}: let every step return the same keys"
        )


def without_final_obs(ending: Ending, env: str) -> str | None:
    """Return in one sentence what is lost if episodes are broken off without final observations, or None."""
    if ending.truncated is None or ending.final_obs is not None:
        return None
    return (
        f"{env}.step returns {TRUNCATED} without {FINAL_OBS}: episodes that are broken off bootstrap from "
        f"the value of the observation before; return {FINAL_OBS}, the true next one"
    )


@cache
def _flag_spec() -> specs.TensorSpec:
    return specs.Unbounded((1,), dtype=torch.bool)


KNOWN = (OBS, REWARDS, *Ending._fields)
"""The keys of what a step returns that are read."""
