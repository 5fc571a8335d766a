"""skrl."""

import logging
from typing import Any

import gymnasium
import numpy as np
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch.base import Wrapper
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer
from torch import nn

from common import Clock, Simulation, Work, main


class Envs(Wrapper):  # type: ignore[misc]
    def __init__(self, work: Work) -> None:
        self.simulation, self._num = Simulation(work), work.num_envs
        self._spaces = (
            gymnasium.spaces.Box(-np.inf, np.inf, (work.obs_size,), np.float32),
            gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
            if work.env == "continuous"
            else gymnasium.spaces.Discrete(2),
        )

    num_envs = property(lambda self: self._num)
    num_agents = property(lambda self: 1)
    device = property(lambda self: torch.device("cpu"))
    observation_space = property(lambda self: self._spaces[0])
    action_space = property(lambda self: self._spaces[1])
    state_space = property(lambda self: None)

    def reset(self) -> Any:
        return self.simulation.reset(), {}

    def step(self, actions: Any) -> Any:
        obs, rewards = self.simulation.step(actions)
        none = torch.zeros(self._num, 1, dtype=torch.bool)
        return obs, rewards, none, none, {}

    def state(self) -> None:
        return None

    def render(self, *args: Any, **kwargs: Any) -> None:
        pass

    def close(self) -> None:
        pass


def network(work: Work, outputs: int) -> nn.Sequential:
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[work.activation]
    layers: list[nn.Module] = []
    before = work.obs_size
    for size in work.hiddens:
        layers += [nn.Linear(before, size), activation()]
        before = size
    return nn.Sequential(*layers, nn.Linear(before, outputs))


def models(work: Work, env: Envs) -> dict[str, Any]:
    spaces = {
        "observation_space": env.observation_space,
        "state_space": None,
        "action_space": env.action_space,
        "device": "cpu",
    }

    class Discrete(CategoricalMixin, Model):  # type: ignore[misc]
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            CategoricalMixin.__init__(self)
            self.net = network(work, 2)

        def compute(self, inputs: Any, role: str = "") -> Any:
            return self.net(inputs["observations"]), {}

    class Continuous(GaussianMixin, Model):  # type: ignore[misc]
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            GaussianMixin.__init__(self)
            self.net = network(work, 1)
            self.log_std = nn.Parameter(torch.zeros(1))

        def compute(self, inputs: Any, role: str = "") -> Any:
            return self.net(inputs["observations"]), {"log_std": self.log_std}

    class Value(DeterministicMixin, Model):  # type: ignore[misc]
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            DeterministicMixin.__init__(self)
            self.net = network(work, 1)

        def compute(self, inputs: Any, role: str = "") -> Any:
            return self.net(inputs["observations"]), {}

    return {"policy": Continuous() if work.env == "continuous" else Discrete(), "value": Value()}


def play(work: Work, clock: Clock) -> None:
    class Timed(PPO):  # type: ignore[misc]
        def update(self, *args: Any, **kwargs: Any) -> None:
            clock.collected()
            super().update(*args, **kwargs)
            clock.ended()

    env = Envs(work)
    options = PPO_CFG(
        rollouts=work.horizon,
        learning_epochs=work.epochs,
        mini_batches=work.transitions // work.minibatch,
        discount_factor=0.95,
        grad_norm_clip=5.0,
        value_clip=5.0,
        value_loss_scale=1.0,
    )
    options.experiment.write_interval = options.experiment.checkpoint_interval = 0
    agent = Timed(
        cfg=options,
        models=models(work, env),
        memory=RandomMemory(memory_size=work.horizon, num_envs=work.num_envs, device="cpu"),
        observation_space=env.observation_space,
        state_space=None,
        action_space=env.action_space,
        device="cpu",
    )
    steps = work.horizon * (work.warm_up + work.iterations)
    trainer = SequentialTrainer(
        env=env, agents=agent, cfg={"timesteps": steps, "headless": True, "disable_progressbar": True}
    )
    clock.start()
    trainer.train()


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main(play)
