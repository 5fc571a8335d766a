"""Recipes for the tasks of `rlstack.env.mujoco`: first ones, from what others have published.

Sources: rl-baselines3-zoo's `hyperparams/ppo.yml` (tuned for version 3 of the tasks, one environment at a
time) and its scores; Tianshou's `examples/mujoco`; CleanRL's PPO for DM Control. Where nothing else is said
they are brought to 32 environments and 2,048 transitions in an update, with a clipped normal distribution,
normalized observations and rewards, and learning rates for that. They hold for `gym:Name-v5` and `dm:name`
too (`simulator_recipes.py`).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .recipe import Recipe, mean_first_return

if TYPE_CHECKING:
    from ..policies.policy import Policy, RecurrentPolicy

_MODULE = "rlstack.env.mujoco"

_SEQ_LEN = 4
"""Of recurrent policies, by default."""


_OWN = ("num_threads", "max_episode_steps")
"""Options that mean nothing where Gymnasium's own environments are played to their end."""


@dataclass(frozen=True, kw_only=True)
class GymnasiumRecipe(Recipe):
    """How to solve an environment that Gymnasium has: there it is judged."""

    gymnasium_id: str
    """Its name there."""

    def score(self, policy: "Policy | RecurrentPolicy", env_config: Mapping[str, Any] | None = None) -> float:
        """Return the mean return of one episode in each of Gymnasium's own environments.

        Args:
            policy: Whose; it acts without chance.
            env_config: Options of the environments that differ from the recipe's.

        Raises:
            EnvError: If Gymnasium or MuJoCo is missing.
        """
        import numpy as np
        import torch

        from ..env.mujoco.model_files import warnings_logged
        from ..env.simulators import needed
        from ..policies.memory import with_zeros

        what = f"judging {self.gymnasium_id}"
        gymnasium = needed("gymnasium", "'rlstack[mujoco]'", what)
        mujoco = needed("mujoco", "'rlstack[mujoco]'", what)
        options = {**self.eval_config, **(env_config or {})}
        options = {key: value for key, value in options.items() if key not in _OWN}
        make = [lambda: gymnasium.make(self.gymnasium_id, **options)] * self.eval_envs
        with warnings_logged(mujoco, what, logging.DEBUG):
            envs = gymnasium.vector.SyncVectorEnv(make)
        obs, _ = envs.reset(seed=list(range(self.eval_envs)))
        returns, over = np.zeros(self.eval_envs), np.zeros(self.eval_envs, bool)
        state = policy.initial_state(self.eval_envs)
        while not over.all():
            seen = torch.as_tensor(obs, dtype=torch.float32, device=policy.device)
            step = policy.act(seen, state, deterministic=True)
            obs, rewards, terminated, truncated, _ = envs.step(step.actions.cpu().numpy())
            returns += np.where(over, 0.0, rewards)
            over |= terminated | truncated
            if step.state is not None:
                ended = torch.as_tensor(terminated | truncated, device=policy.device).unsqueeze(-1)
                state = with_zeros(step.state, ended)
        envs.close()
        return float(returns.mean())


def _hyperparameters(
    lr: float, log_std: float = -2.0, *, steps: int = 1_000_000, **others: Any
) -> dict[str, Any]:
    """Return what all have in common; the learning rate falls to a tenth within so many transitions."""
    others = {"model_config": {"hiddens": [256, 256], "log_std_init": log_std}, **others}
    return {
        "num_envs": 32,
        "horizon": 64,
        "horizons_per_env_reset": -1,
        "sgd_minibatch_size": 128,
        "num_sgd_iters": 10,
        "optimizer_config": {"lr": lr},
        "lr_schedule": [[0, lr], [steps, 0.1 * lr]],
        "lr_schedule_kind": "interp",
        "distribution_cls": "rlstack.distributions.Normal",
        "normalize_observations": True,
        "vf_clip_param": None,
        **others,
    }


def recurrent(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that differ for `RecurrentAlgorithm`."""
    options = hyperparameters["model_config"]
    memory = {"hidden_size": 256, **{key: options[key] for key in ("log_std_init",) if key in options}}
    size = hyperparameters["sgd_minibatch_size"] // _SEQ_LEN
    return {"sgd_minibatch_size": size, "model_config": memory}


def _gymnasium(env: str, target: float, hyperparameters: dict[str, Any]) -> Recipe:
    return GymnasiumRecipe(
        env=env,
        module=_MODULE,
        gymnasium_id=f"{env}-v5",
        hyperparameters=hyperparameters,
        recurrent=recurrent(hyperparameters),
        goal=f"20 episodes of Gymnasium's own {env}-v5 return {target:,g} on average",
        judge=mean_first_return,
        target=target,
        eval_steps=1000,
        eval_envs=20,
        updates_per_check=50,
    )


SUITE = _hyperparameters(
    3e-4,
    steps=8_000_000,
    gamma=0.99,
    gae_lambda=0.95,
    clip_param=0.2,
    vf_coeff=0.5,
    max_grad_norm=0.5,
    model_config={"hiddens": [64, 64], "activation_fn": "tanh", "log_std_init": -1.0},
)
"""For all of DM Control's suite: CleanRL's defaults, which it trains for 8 M steps."""


def _suite(env: str, name: str, target: float) -> Recipe:
    return Recipe(
        env=env,
        module=_MODULE,
        hyperparameters=SUITE,
        recurrent=recurrent(SUITE),
        goal=f"20 episodes of DM Control's {name} return {target:,g} on average",
        judge=mean_first_return,
        target=target,
        eval_steps=1000,
        eval_envs=20,
        updates_per_check=50,
    )


MUJOCO_RECIPES: Mapping[str, Recipe] = {
    # The zoo's, with fifteen times its learning rate.
    "half-cheetah": _gymnasium(
        "HalfCheetah",
        5000.0,
        _hyperparameters(3e-4, gamma=0.98, gae_lambda=0.92, clip_param=0.1, vf_coeff=0.5, max_grad_norm=0.8),
    ),
    # The zoo has 2,410 after 1 M steps; with its discount, and as little noise, standing still is learned.
    "hopper": _gymnasium(
        "Hopper",
        2400.0,
        _hyperparameters(
            2e-4, -0.5, gamma=0.99, gae_lambda=0.95, clip_param=0.2, vf_coeff=0.84, max_grad_norm=0.7
        ),
    ),
    # The zoo's; it has 3,479 after 1 M steps.
    "walker2d": _gymnasium(
        "Walker2d",
        3400.0,
        _hyperparameters(
            2e-4,
            gamma=0.99,
            gae_lambda=0.95,
            clip_param=0.1,
            vf_coeff=0.87,
            max_grad_norm=1.0,
            entropy_coeff=0.0006,
        ),
    ),
    # Tianshou's; it has 3,258 after 1 M steps.
    "ant": _gymnasium(
        "Ant",
        3200.0,
        _hyperparameters(
            3e-4,
            gamma=0.99,
            gae_lambda=0.95,
            clip_param=0.2,
            vf_coeff=0.25,
            max_grad_norm=0.5,
            model_config={"hiddens": [64, 64], "activation_fn": "tanh", "log_std_init": -0.5},
        ),
    ),
    # The zoo's, 4,096 transitions in an update; it has 282 after 1 M steps.
    "swimmer": _gymnasium(
        "Swimmer",
        270.0,
        _hyperparameters(
            6e-4,
            0.0,
            num_envs=16,
            horizon=256,
            sgd_minibatch_size=256,
            gamma=0.9999,
            gae_lambda=0.98,
            vf_coeff=0.5,
            max_grad_norm=0.5,
            model_config={"hiddens": [64, 64], "activation_fn": "tanh", "log_std_init": 0.0},
        ),
    ),
    # The zoo's; the target is Tianshou's after 1 M steps.
    "reacher": _gymnasium(
        "Reacher",
        -4.1,
        _hyperparameters(
            2e-4,
            0.0,
            num_sgd_iters=5,
            gamma=0.9,
            gae_lambda=1.0,
            clip_param=0.3,
            vf_coeff=0.95,
            max_grad_norm=0.9,
            model_config={"hiddens": [64, 64], "activation_fn": "tanh", "log_std_init": 0.0},
        ),
    ),
    "cartpole-swingup": _suite("CartpoleSwingup", "cartpole swing-up", 641.0),
    "cheetah-run": _suite("CheetahRun", "cheetah run", 433.0),
    "walker-walk": _suite("WalkerWalk", "walker walk", 393.0),
    "reacher-easy": _suite("ReacherEasy", "reacher easy", 626.0),
}
"""By name."""
