"""Stable-Baselines3."""

from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from common import Clock, Simulation, Work, main


class Envs(VecEnv):
    def __init__(self, work: Work) -> None:
        self.simulation = Simulation(work)
        space = gymnasium.spaces.Box(-np.inf, np.inf, (work.obs_size,), np.float32)
        box = gymnasium.spaces.Box(-1e6, 1e6, (work.num_actions,), np.float32)
        super().__init__(work.num_envs, space, box if work.is_continuous else gymnasium.spaces.Discrete(2))
        self._infos: list[dict[str, Any]] = [{} for _ in range(work.num_envs)]

    def reset(self) -> np.ndarray:
        return self.simulation.reset().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = torch.from_numpy(actions).view(self.num_envs, -1)

    def step_wait(self) -> Any:
        obs, rewards = self.simulation.step(self._actions)
        return obs.numpy(), rewards.numpy().ravel(), np.zeros(self.num_envs, dtype=bool), self._infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        pass

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def play(work: Work, clock: Clock) -> None:
    class Timed(PPO):  # type: ignore[misc]
        def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
            more = super().collect_rollouts(*args, **kwargs)
            clock.collected()
            return more

        def train(self) -> None:
            super().train()
            clock.ended()

    activation = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[work.activation]
    agent = Timed(
        "MlpPolicy",
        Envs(work),
        learning_rate=1e-3,
        n_steps=work.horizon,
        batch_size=work.minibatch,
        n_epochs=work.epochs,
        gamma=0.95,
        clip_range_vf=5.0,
        max_grad_norm=5.0,
        vf_coef=1.0,
        policy_kwargs={
            "net_arch": {"pi": list(work.hiddens), "vf": list(work.hiddens)},
            "activation_fn": activation,
        },
        device="cpu",
    )
    clock.start()
    agent.learn(work.transitions * (work.warm_up + work.iterations))


if __name__ == "__main__":
    main(play)
