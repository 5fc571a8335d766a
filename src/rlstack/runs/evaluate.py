"""Judging a saved policy."""

from pathlib import Path
from typing import Any

import torch

from ..common.device import resolve_device
from ..common.metrics import read_back, reward_stats
from ..common.random_state import keep_random_state
from ..env.base import EnvFactory, checked_reset, checked_step, make_env, most_steps
from ..policies.policy import Policy, RecurrentPolicy
from . import checkpoint
from .class_paths import find_class
from .inspect import find_checkpoint
from .saved_config import read_config

_HORIZONS = 10
"""How many to judge a policy by: what goes wrong after the horizon it was trained on shows only later."""


def evaluate(
    path: Path,
    *,
    env_cls: EnvFactory | None = None,
    env_config: dict[str, Any],
    num_envs: int,
    steps: int | None,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Return how a checkpoint's policy does in fresh environments, acting without chance.

    Args:
        path: A checkpoint, or a run.
        env_cls: The environment's class, if its name in the run's config.yaml doesn't do.
        env_config: Options of the environments that differ from the run's.
        num_envs: How many environments.
        steps: How many steps of each; None is ten horizons, at most the environment's `max_horizon`.
        seed: Of the environments' random numbers.
        device: Where to simulate.

    Raises:
        CheckpointError: If there is no sound checkpoint.
        RunDirError, ConfigError: If the run's config.yaml can't be used.
        EnvError: If the environment breaks its contract.
    """
    where, device_ = find_checkpoint(path), resolve_device(device)
    said = checkpoint.read(where)
    # What is imported may change the working directory.
    place = where.absolute()
    run = place.parent.parent
    config = read_config(run)
    options = config["algorithm_config"]
    env_cls = env_cls or find_class(config["env"], "env", run)
    classes = {
        name: None if options.get(name) is None else find_class(options[name], name, run)
        for name in ("model_cls", "distribution_cls")
    }
    policy_cls = RecurrentPolicy if config["algorithm"] == "recurrent" else Policy
    policy = policy_cls.load(place / "model.safetensors", device=device_, **classes)
    with keep_random_state(device_):
        torch.manual_seed(seed)
        config_ = {**(options.get("env_config") or {}), **env_config}
        env = make_env(env_cls, num_envs, config_ or None, device_)
        obs, state, rewards = checked_reset(env, num_envs, None, device_), policy.initial_state(num_envs), []
        for t in range(steps or most_steps(env, _HORIZONS * options["horizon"])):
            step = policy.act(obs, state, deterministic=True)
            obs, reward, _ = checked_step(env, num_envs, step.actions, t, device_)
            state = step.state
            rewards.append(reward.clone())
    return {
        "checkpoint": str(where),
        "updates": said.info["updates"],
        "num_envs": num_envs,
        "steps": len(rewards),
        **read_back(reward_stats(torch.stack(rewards).to(torch.float64))),
    }
