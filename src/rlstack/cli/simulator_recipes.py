"""Hyperparameters for environments of other packages, by the names that `rlstack train` takes.

Unlike a recipe they have no goal: training ends with a limit. Sources are named beside each;
`docs/results.md` has what comes out.
"""

from collections.abc import Mapping
from typing import Any

from .mujoco_recipes import MUJOCO_RECIPES, SUITE, GymnasiumRecipe, recurrent

_TANH = {"hiddens": [64, 64], "activation_fn": "tanh"}

SIMULATOR_RECIPES: Mapping[str, Mapping[str, Any]] = {
    **{
        f"gym:{recipe.gymnasium_id}": recipe.hyperparameters
        for recipe in MUJOCO_RECIPES.values()
        if isinstance(recipe, GymnasiumRecipe)
    },
    # Solved by the sizes of the built-in `cartpole-v1` and `acrobot-v1`, with fewer environments.
    **{
        f"gym:{name}": {
            "num_envs": 32,
            "horizon": 64,
            "horizons_per_env_reset": -1,
            "gamma": 0.99,
            "gae_lambda": 0.95,
            "sgd_minibatch_size": 256,
            "num_sgd_iters": 10,
            "optimizer_config": {"lr": 1e-3},
            "lr_schedule": [[0, 1e-3], [500_000, 1e-4]],
            "lr_schedule_kind": "interp",
            "max_grad_norm": 0.5,
            "normalize_observations": True,
            "model_config": _TANH,
        }
        for name in ("CartPole-v1", "Acrobot-v1")
    },
    # rl-baselines3-zoo's for version 2, with as many transitions in an update, and larger minibatches.
    "gym:LunarLander-v3": {
        "num_envs": 32,
        "horizon": 128,
        "horizons_per_env_reset": -1,
        "gamma": 0.999,
        "gae_lambda": 0.98,
        "sgd_minibatch_size": 128,
        "num_sgd_iters": 4,
        "optimizer_config": {"lr": 1e-3},
        "lr_schedule": [[0, 1e-3], [1_000_000, 1e-4]],
        "lr_schedule_kind": "interp",
        "entropy_coeff": 0.01,
        "vf_coeff": 0.5,
        "max_grad_norm": 0.5,
        "normalize_observations": True,
        "model_config": _TANH,
    },
    # The flag is far off and effort costs: actions that are clipped from wide noise find it often enough.
    "gym:MountainCarContinuous-v0": {
        "num_envs": 32,
        "horizon": 64,
        "horizons_per_env_reset": -1,
        "gamma": 0.9999,
        "gae_lambda": 0.95,
        "sgd_minibatch_size": 256,
        "num_sgd_iters": 10,
        "optimizer_config": {"lr": 1e-3},
        "distribution_cls": "rlstack.distributions.Normal",
        "vf_clip_param": None,
        "max_grad_norm": 0.5,
        "normalize_observations": True,
        "model_config": {**_TANH, "log_std_init": 1.0},
    },
    "dm": SUITE,
}
"""By full name, or by the prefix of all environments of a simulator."""


def hyperparameters_for(name: str, algorithm: str) -> dict[str, Any]:
    """Return the hyperparameters for an environment of another package; none if there are none for it.

    Args:
        name: As the command line takes it.
        algorithm: `feedforward` or `recurrent`.
    """
    found = SIMULATOR_RECIPES.get(name) or SIMULATOR_RECIPES.get(name.partition(":")[0], {})
    return {**found, **(recurrent(found) if found and algorithm == "recurrent" else {})}
