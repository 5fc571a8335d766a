"""How a policy does in an environment, acting without chance."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..common.types import Batch
from ..env.base import checked_reset, checked_step
from ..env.ending import Ending, check_keys, copied
from .memory import with_zeros
from .policy import Policy, RecurrentPolicy


def rollout(
    policy: Policy | RecurrentPolicy, env: Any, *, num_envs: int, steps: int
) -> Iterator[tuple[Batch, Tensor, Ending | None]]:
    """Reset an environment, act in it, and yield what each step returned: copies, they stay as they are.

    Args:
        policy: Who acts.
        env: The environment, on the policy's device.
        num_envs: How many simulations it has, B.
        steps: How many steps to take.

    Yields:
        Observations [B, ...], rewards [B, 1] and what is said of endings.

    Raises:
        EnvError: If the environment breaks its contract.
    """
    obs, state = checked_reset(env, num_envs, None, policy.device), policy.initial_state(num_envs)
    keys: tuple[str, ...] = ()
    for t in range(steps):
        step = policy.act(obs, state, deterministic=True)
        obs, rewards, ending = checked_step(env, num_envs, step.actions, t, policy.device)
        if t == 0 and ending is not None:
            keys = ending.keys
        check_keys(ending, keys, f"{type(env).__name__}.step (step {t})")
        state = step.state
        if ending is not None and state is not None:
            state = with_zeros(state, ending.cut)
        yield obs.clone(), rewards.clone(), copied(ending)
