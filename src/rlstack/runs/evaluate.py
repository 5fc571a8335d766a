"""Judging a saved policy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.device import resolve_device
from ..common.metrics import read_back, reward_stats
from ..common.random_state import keep_random_state
from ..env.base import EnvFactory, make_env, most_steps
from ..env.ending import Ending
from ..env.optional import env_metrics
from ..policies.policy import Policy, RecurrentPolicy
from ..policies.rollout import rollout
from ..ppo.episodes import Episodes, without_none
from . import checkpoint
from .class_paths import find_class
from .inspect import find_checkpoint
from .saved_config import CONFIG, read_config
from .yaml_format import check_written

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

    Their own metrics are asked once, after all steps.

    Args:
        path: A checkpoint, or a run.
        env_cls: The environment's class, if its name in the run's config.yaml doesn't do.
        env_config: Options of the environments that differ from the run's.
        num_envs: How many environments.
        steps: How many steps of each; None is ten horizons, at most the environment's `max_horizon`.
        seed: Of the environments' random numbers.
        device: Where to simulate.

    Raises:
        CheckpointError: If there is no sound checkpoint, or it is of another run than its directory.
        RunDirError, ConfigError: If the run's config.yaml can't be used.
        EnvError: If the environment breaks its contract.
    """
    where, device_ = find_checkpoint(path), resolve_device(device)
    # What is imported may change the working directory.
    run = where.absolute().parent.parent
    config = read_config(run)
    said = checkpoint.read(where, config.get("id", ""))
    options = config["algorithm_config"]
    env_cls = env_cls or find_class(config["env"], "env", run)
    policy = load_policy(where, config, device_)
    config_ = {**(options.get("env_config") or {}), **env_config}
    check_written({"env_config": config_}, str(run / CONFIG))
    with keep_random_state(device_):
        torch.manual_seed(seed)
        env = make_env(env_cls, num_envs, config_ or None, device_)
        steps = steps or most_steps(env, _HORIZONS * options["horizon"])
        _, each_rewards, endings = zip(*rollout(policy, env, num_envs=num_envs, steps=steps), strict=True)
    rewards = torch.stack(each_rewards)
    return {
        "checkpoint": str(where),
        "updates": said.info["updates"],
        "num_envs": num_envs,
        "steps": len(rewards),
        **without_none(read_back({**_stats(rewards, endings), **env_metrics(env, device_)})),
    }


def load_policy(where: Path, config: dict[str, Any], device: torch.device) -> Policy | RecurrentPolicy:
    """Return the policy of a checkpoint, of classes that its run's config.yaml names.

    Args:
        where: The checkpoint, in its run.
        config: That of the run.
        device: Where to put it.
    """
    place, options = where.absolute(), config["algorithm_config"]
    classes = {
        name: None if options.get(name) is None else find_class(options[name], name, place.parent.parent)
        for name in ("model_cls", "distribution_cls")
    }
    policy_cls = RecurrentPolicy if config["algorithm"] == "recurrent" else Policy
    return policy_cls.load(place / "model.safetensors", device=device, **classes)


def _stats(rewards: Tensor, endings: Sequence[Ending | None]) -> dict[str, Tensor]:
    """Return `returns/…`, `rewards/…` and, where episodes end, `episodes/…` of some steps.

    Args:
        rewards: [T, B, 1].
        endings: What each step says of endings.
    """
    said = [ending for ending in endings if ending is not None]
    if not said:
        return reward_stats(rewards.to(torch.float64))
    ended, cut = torch.stack([e.episode_ended for e in said]), torch.stack([e.cut for e in said])
    flags = [e.valid for e in said if e.valid is not None]
    valid = torch.stack(flags) if flags else None
    episodes = Episodes(rewards.shape[1], rewards.device).take(rewards, ended, cut, valid)
    return {**reward_stats(rewards.to(torch.float64), valid), **episodes}
