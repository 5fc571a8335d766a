"""Built-in environments by short name: hyperparameters that solve them, and what solved means.

Only data and plain functions: listing the names loads nothing.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .mujoco_recipes import MUJOCO_RECIPES
from .recipe import Recipe as Recipe
from .recipe import mean_first_return

if TYPE_CHECKING:
    from torch import Tensor


def _share_upright(obs: "Tensor", rewards: "Tensor", ended: "Tensor") -> float:
    within = (obs[..., 0].abs() <= 2.4) & (obs[..., 2].abs() <= 12 * math.pi / 180)
    return float(within.all(0).float().mean())


def _share_arrived(obs: "Tensor", rewards: "Tensor", ended: "Tensor") -> float:
    return float((obs[..., 0] >= 0.5).any(0).float().mean())


def _mean_return(obs: "Tensor", rewards: "Tensor", ended: "Tensor") -> float:
    return float(rewards.sum(0).mean())


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
        judge=mean_first_return,
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
        "CartPoleV1", "64 episodes of Gymnasium's CartPole-v1 last 490 steps on average", 490.0
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
    **MUJOCO_RECIPES,
}
"""The built-in names."""
