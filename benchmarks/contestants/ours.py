"""rlstack."""

from typing import Any

import torch
from tensordict import TensorDict

import rlstack
from common import Clock, Simulation, Work, iterate, main
from rlstack import Algorithm, RecurrentAlgorithm
from rlstack.env import ContinuousDummyEnv, DiscreteDummyEnv, Env
from rlstack.specs import Categorical, Unbounded


def play(work: Work, clock: Clock) -> None:
    class Simulated(Env):
        def __init__(self, num_envs: int, /, **kwargs: Any) -> None:
            super().__init__(num_envs, **kwargs)
            self.observation_spec = Unbounded((work.obs_size,))
            numbers, choices = Unbounded((work.num_actions,)), Categorical(2, shape=(1,))
            self.action_spec = numbers if work.is_continuous else choices
            self.simulation = Simulation(work)

        def reset(self, *, config: Any = None) -> Any:
            return self.simulation.reset()

        def step(self, action: Any) -> TensorDict:
            obs, rewards = self.simulation.step(action)
            return TensorDict({"obs": obs, "rewards": rewards}, self.num_envs)

    class Ending(Env):
        def __init__(self, num_envs: int, /, **kwargs: Any) -> None:
            super().__init__(num_envs, **kwargs)
            self.inner = DiscreteDummyEnv(num_envs, **kwargs)
            self.observation_spec, self.action_spec = self.inner.observation_spec, self.inner.action_spec
            self.odd = torch.arange(num_envs).unsqueeze(-1) % 2 == 1

        def reset(self, *, config: Any = None) -> Any:
            return self.inner.reset(config=config)

        def step(self, action: Any) -> TensorDict:
            out = self.inner.step(action)
            final_obs = out["obs"].clone()
            ended = torch.rand(self.num_envs, 1) < work.ending
            self.inner.state.masked_fill_(ended, 0.0)
            said = {"terminated": ended & self.odd, "truncated": ended & ~self.odd, "final_obs": final_obs}
            return out.update(said)

    envs = {
        "discrete": DiscreteDummyEnv,
        "continuous": ContinuousDummyEnv,
        "cartpole": Simulated,
        "wide": Simulated,
    }
    options: dict[str, Any] = {"num_envs": work.num_envs, "horizon": work.horizon, "device": "cpu"}
    options |= {"num_sgd_iters": work.epochs, **work.options}
    if not work.recurrent:
        options["model_config"] = {"hiddens": list(work.hiddens), "activation_fn": work.activation}
    if work.minibatch < work.transitions:
        options["sgd_minibatch_size"] = work.minibatch
    env_cls = Ending if work.ending else envs[work.env]
    algorithm = (RecurrentAlgorithm if work.recurrent else Algorithm)(env_cls, **options)
    iterate(algorithm, clock)


if __name__ == "__main__":
    main(play, code=rlstack.__file__)
