"""Whole episodes of a policy, without chance, in a simulator's own environments."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from rlstack import Policy, RecurrentPolicy
from rlstack.env.dm_control import make
from rlstack.policies.rollout import rollout


class Episodes(NamedTuple):
    """One episode in each of several environments."""

    returns: np.ndarray
    """[N]."""
    lengths: np.ndarray
    """[N]. Steps."""
    terminated: np.ndarray
    """[N], bool. Whether the environment ended it, not a time limit."""


def play(env_id: str, policy: Policy | RecurrentPolicy, number: int) -> Episodes:
    """Return the first episodes of Gymnasium's own environments with the seeds 0 … number − 1."""
    env: Any = gym.vector.SyncVectorEnv([lambda: gym.make(env_id)] * number)
    obs, _ = env.reset(seed=list(range(number)))
    returns, lengths = np.zeros(number), np.zeros(number, int)
    done, terminated = np.zeros(number, bool), np.zeros(number, bool)
    discrete = isinstance(env.single_action_space, gym.spaces.Discrete)
    state = None
    while not done.all():
        step = policy.act(torch.as_tensor(obs, dtype=torch.float32), state, deterministic=True)
        actions, state = step.actions.numpy(), step.state
        obs, rewards, ended, timed_out, _ = env.step(actions[:, 0] if discrete else actions)
        returns += np.where(done, 0.0, rewards)
        lengths += ~done
        terminated |= ended & ~done
        done |= ended | timed_out
    return Episodes(returns, lengths, terminated)


def play_suite(name: str, policy: Policy | RecurrentPolicy, number: int) -> Episodes:
    """Return the first episodes of a task of DM Control's suite, simulated by dm_control, after seed 0."""
    torch.manual_seed(0)
    env = make(name)(number)
    returns, lengths = torch.zeros(number), torch.zeros(number, dtype=torch.int64)
    done, terminated = (torch.zeros(number, dtype=torch.bool) for _ in range(2))
    for _, rewards, ending in rollout(policy, env, num_envs=number, steps=10_000):
        returns += rewards.squeeze(-1).where(~done, 0.0)
        lengths += ~done
        if ending is not None and ending.terminated is not None:
            terminated |= ending.terminated.squeeze(-1) & ~done
        if ending is not None:
            done |= ending.cut.squeeze(-1)
        if done.all():
            break
    return Episodes(returns.numpy(), lengths.numpy(), terminated.numpy())
