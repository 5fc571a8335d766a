"""rsl_rl, which takes continuous actions only."""

import contextlib
import sys
from typing import Any

import torch
from rsl_rl.algorithms import PPO
from rsl_rl.env import VecEnv
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict

from common import Clock, Simulation, Work, main


class Envs(VecEnv):  # type: ignore[misc]
    def __init__(self, work: Work) -> None:
        self.simulation = Simulation(work)
        self.num_envs, self.num_actions = work.num_envs, 1
        self.max_episode_length = 10**9
        self.episode_length_buf = torch.zeros(work.num_envs, dtype=torch.long)
        self.device, self.cfg = "cpu", {}
        self._obs = self.simulation.reset()
        self._none = torch.zeros(work.num_envs, dtype=torch.long)

    def get_observations(self) -> TensorDict:
        return TensorDict({"policy": self._obs}, batch_size=self.num_envs)

    def step(self, actions: Any) -> Any:
        self._obs, rewards = self.simulation.step(actions)
        return self.get_observations(), rewards.flatten(), self._none, {}


def play(work: Work, clock: Clock) -> None:
    class Timed(PPO):  # type: ignore[misc]
        def compute_returns(self, *args: Any) -> None:
            super().compute_returns(*args)
            clock.collected()

        def update(self) -> Any:
            losses = super().update()
            clock.ended()
            return losses

    network = {"class_name": "MLPModel", "hidden_dims": list(work.hiddens), "activation": work.activation}
    options = {
        "num_steps_per_env": work.horizon,
        "save_interval": 10**6,
        "check_for_nan": False,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": {**network, "distribution_cfg": {"class_name": "GaussianDistribution"}},
        "critic": dict(network),
        "algorithm": {
            "class_name": Timed,
            "num_learning_epochs": work.epochs,
            "num_mini_batches": work.transitions // work.minibatch,
            "gamma": 0.95,
            "lam": 0.95,
            "entropy_coef": 0.0,
            "learning_rate": 1e-3,
            "max_grad_norm": 5.0,
            "schedule": "fixed",
        },
    }
    with contextlib.redirect_stdout(sys.stderr):
        runner = OnPolicyRunner(Envs(work), options, log_dir=None, device="cpu")
        clock.start()
        runner.learn(work.warm_up + work.iterations)


if __name__ == "__main__":
    main(play)
