"""An environment that is checked, and what it does: resets and steps, with the same actions each time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from .. import specs
from ..common.random_state import keep_random_state
from ..common.types import OBS, REWARDS, Batch, Config
from ..env.base import SPECS, EnvFactory, checked_reset, checked_step, make_env, most_steps
from ..env.ending import Ending


@final
@dataclass(frozen=True)
class Subject:
    """What is checked, and how."""

    env_cls: EnvFactory
    config: Config | None
    num_envs: int
    steps: int
    device: torch.device

    def __post_init__(self) -> None:
        """Refuse numbers that aren't any."""
        for name in ("num_envs", "steps"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise ValueError(f"{name} is {number!r}, expected a whole number of at least 1")

    def make(self) -> Any:
        """Return an environment, from seed 0."""
        torch.manual_seed(0)
        return make_env(self.env_cls, self.num_envs, self.config, self.device)

    def reset(self, env: Any) -> Batch:
        """Return the observations after a reset, [B, ...], their form checked."""
        return checked_reset(env, self.num_envs, None, self.device)

    def actions(self, env: Any) -> Batch:
        """Return random actions, [B, *A], from the generator as it stands."""
        return env.action_spec.to(self.device).rand((self.num_envs,))


def spec_leaves(env: Any) -> Iterator[tuple[tuple[str, ...], specs.TensorSpec]]:
    """Yield path and spec of each part of what an environment returns and takes."""
    for name in SPECS:
        yield from specs.leaves(getattr(env, name), (name,))


def named_leaves(value: Any, spec: specs.TensorSpec) -> Iterator[tuple[str, Tensor, specs.TensorSpec]]:
    """Yield name, numbers and spec of each part of observations [B, ...]."""
    for path, part, leaf in specs.parts(value, spec):
        yield ".".join((OBS, *path)), part, leaf


Moment: TypeAlias = tuple[int, Batch, Tensor | None]
"""A step, -1 after a reset, the observations and the rewards."""


def walk(subject: Subject, env: Any, notice: Callable[[str], object] | None = None) -> Iterator[Moment]:
    """Take the steps of `steps`, without what they say of endings."""
    for step, obs, rewards, _ in steps(subject, env, notice):
        yield step, obs, rewards


def steps(
    subject: Subject, env: Any, notice: Callable[[str], object] | None = None
) -> Iterator[tuple[int, Batch, Tensor, Ending | None]]:
    """Take steps with random actions that are the same each time, without touching torch's generator.

    Args:
        subject: What is checked.
        env: It, after a reset.
        notice: As `checked_step` takes it.

    Yields:
        Which step it is, observations, rewards, and what it says of endings.
    """
    for step in range(most_steps(env, subject.steps)):
        with keep_random_state(subject.device):
            torch.manual_seed(step)
            actions = subject.actions(env)
        yield step, *checked_step(env, subject.num_envs, actions, step, subject.device, notice=notice)


def copies(moments: Iterable[Moment]) -> Iterator[Moment]:
    """Yield them as they are now: the environment may go on writing into them."""
    for step, obs, rewards in moments:
        yield step, obs.clone(), None if rewards is None else rewards.clone()


def trajectory(subject: Subject, env: Any, *, seed: int = 0) -> list[Moment]:
    """Return a reset and all steps, from a seed of torch's generator."""
    torch.manual_seed(seed)
    first: Moment = (-1, subject.reset(env), None)
    return [*copies([first]), *copies(walk(subject, env))]


def difference(env: Any, ones: list[Moment], others: list[Moment]) -> str | None:
    """Return where two trajectories differ first, in words; None if they don't."""
    for (step, obs, rewards), (_, other_obs, other_rewards) in zip(ones, others, strict=True):
        named = [(name, value) for name, value, _ in named_leaves(obs, env.observation_spec)]
        others_named = [value for _, value, _ in named_leaves(other_obs, env.observation_spec)]
        if rewards is not None and other_rewards is not None:
            named.append((REWARDS, rewards))
            others_named.append(other_rewards)
        for (name, value), other in zip(named, others_named, strict=True):
            bad = (value != other).flatten(1).any(1)
            if bad.any():
                where = "after the reset" if step < 0 else f"in step {step}"
                return f"{name} of environment {int(bad.nonzero()[0])} differs {where}"
    return None
