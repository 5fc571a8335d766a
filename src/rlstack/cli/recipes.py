"""Built-in environments by short name: hyperparameters that solve them, and what solved means.

Only data and plain functions: listing the names loads nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from ..policies.policy import Policy, RecurrentPolicy


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to solve one environment."""

    env: str
    """Name of the class in `rlstack.env`."""
    hyperparameters: Mapping[str, Any]
    """Of `Algorithm`; they solve the environment within three minutes on two CPU cores."""
    recurrent: Mapping[str, Any]
    """Those that differ for `RecurrentAlgorithm`, with which they solve it, too."""
    goal: str
    """What solved means, in words."""
    judge: "Callable[[Tensor, Tensor, Tensor], float]"
    """Score of a deterministic evaluation, from observations [T, N, ...], rewards [T, N, 1] and whether
    episodes end with the step, bool [T, N, 1]."""
    target: float
    """Score from which on the environment is solved."""
    eval_config: Mapping[str, float] = field(default_factory=dict)
    """Options of the fresh environments that the evaluation runs in."""
    eval_steps: int
    """Steps of an evaluation, T."""
    eval_envs: int = 64
    """Environments of an evaluation, N."""
    updates_per_check: int = 5
    """How often training looks whether it is done."""

    def env_cls(self) -> Any:
        """Return the environment's class."""
        return getattr(import_module("rlstack.env"), self.env)

    def for_algorithm(self, algorithm: str) -> dict[str, Any]:
        """Return the hyperparameters of an algorithm, `feedforward` or `recurrent`."""
        return {**self.hyperparameters, **(self.recurrent if algorithm == "recurrent" else {})}

    def score(self, policy: "Policy | RecurrentPolicy", env_config: Mapping[str, Any] | None = None) -> float:
        """Return the policy's score on fresh environments; leaves torch's random state as it was.

        Args:
            policy: Whose.
            env_config: Options of the environments that differ from the recipe's.
        """
        import torch

        from ..common.random_state import keep_random_state
        from ..policies.rollout import rollout

        with keep_random_state(policy.device):
            config = {**self.eval_config, **(env_config or {})}
            env = self.env_cls()(self.eval_envs, config=config, device=policy.device)
            history = list(rollout(policy, env, num_envs=self.eval_envs, steps=self.eval_steps))
        observations, rewards, endings = zip(*history, strict=True)
        ended = [torch.zeros_like(rewards[0], dtype=torch.bool) if e is None else e.cut for e in endings]
        return self.judge(*(torch.stack(parts) for parts in (observations, rewards, ended)))


def _share_upright(obs: "Tensor", rewards: "Tensor", ended: "Tensor") -> float:
    within = (obs[..., 0].abs() <= 2.4) & (obs[..., 2].abs() <= 12 * math.pi / 180)
    return float(within.all(0).float().mean())


def _share_arrived(obs: "Tensor", rewards: "Tensor", ended: "Tensor") -> float:
    return float((obs[..., 0] >= 0.5).any(0).float().mean())


def _mean_return(obs: "Tensor", rewards: "Tensor", ended: "Tensor") -> float:
    return float(rewards.sum(0).mean())


def _mean_first_return(obs: "Tensor", rewards: "Tensor", ended: "Tensor") -> float:
    """Of each simulation's first episode."""
    over = ended.int().cumsum(0) - ended.int()
    return float(rewards.where(over == 0, 0.0).sum(0).mean())


def _mean_last_distance(obs: "Tensor", rewards: "Tensor", ended: "Tensor") -> float:
    return -float(obs[-1].abs().mean())


_LSTM = {"hidden_size": 64}


def _dummy(env: str) -> Recipe:
    bounds = {"bounds": 20.0}
    return Recipe(
        env=env,
        hyperparameters={
            "env_config": bounds,
            "num_envs": 1024,
            "sgd_minibatch_size": 4096,
            "model_config": {"hiddens": [64, 64]},
        },
        recurrent={"sgd_minibatch_size": 1024, "model_config": _LSTM},
        goal="64 points are within 1 of the origin after 32 steps, on average",
        judge=_mean_last_distance,
        target=-1.0,
        eval_config=bounds,
        eval_steps=32,
    )


def _episodic(env: str, goal: str, target: float) -> Recipe:
    return Recipe(
        env=env,
        hyperparameters={
            "num_envs": 512,
            "horizon": 64,
            "horizons_per_env_reset": -1,
            "gamma": 0.99,
            "sgd_minibatch_size": 4096,
            "model_config": {"hiddens": [64, 64], "activation_fn": "tanh"},
        },
        recurrent={"sgd_minibatch_size": 1024, "model_config": _LSTM},
        goal=goal,
        judge=_mean_first_return,
        target=target,
        eval_steps=500,
    )


RECIPES: Mapping[str, Recipe] = {
    "cartpole": Recipe(
        env="CartPole",
        hyperparameters={
            "num_envs": 512,
            "horizon": 64,
            "gamma": 0.98,
            "sgd_minibatch_size": 4096,
            "model_config": {"hiddens": [64, 64], "activation_fn": "tanh"},
        },
        recurrent={"sgd_minibatch_size": 1024, "model_config": _LSTM},
        goal="all of 64 poles stay within Gymnasium's limits for 500 steps",
        judge=_share_upright,
        target=1.0,
        eval_config={"start_x": 0.05, "start_x_dot": 0.05, "start_theta": 0.05, "start_theta_dot": 0.05},
        eval_steps=500,
    ),
    "cartpole-v1": _episodic(
        "CartPoleV1", "64 episodes of Gymnasium's CartPole-v1 last 475 steps on average", 475.0
    ),
    "acrobot-v1": _episodic(
        "AcrobotV1", "64 episodes of Gymnasium's Acrobot-v1 take 100 steps on average", -100.0
    ),
    "mountain-car": Recipe(
        env="MountainCar",
        hyperparameters={
            "num_envs": 1024,
            "horizon": 64,
            "gamma": 0.99,
            "normalize_observations": True,
            "sgd_minibatch_size": 8192,
            "model_config": {"hiddens": [64, 64], "activation_fn": "tanh"},
        },
        recurrent={"sgd_minibatch_size": 2048, "model_config": _LSTM},
        goal="all of 64 cars reach the flag within 200 steps",
        judge=_share_arrived,
        target=1.0,
        eval_config={"start_center": -0.5, "start_position": 0.1, "start_velocity": 0.0},
        eval_steps=200,
    ),
    "pendulum": Recipe(
        env="Pendulum",
        hyperparameters={
            "num_envs": 1024,
            "horizon": 64,
            "gamma": 0.95,
            "normalize_observations": True,
            "sgd_minibatch_size": 8192,
            "model_config": {"hiddens": [64, 64], "activation_fn": "tanh"},
        },
        recurrent={"sgd_minibatch_size": 2048, "model_config": _LSTM},
        goal="64 pendulums cost at most 160 each within 200 steps, on average",
        judge=_mean_return,
        target=-160.0,
        eval_config={"start_theta_dot": 1.0},
        eval_steps=200,
    ),
    "discrete-dummy": _dummy("DiscreteDummyEnv"),
    "continuous-dummy": _dummy("ContinuousDummyEnv"),
}
"""The built-in names."""
