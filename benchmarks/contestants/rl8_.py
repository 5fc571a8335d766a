"""rl8 1.0.0."""

from typing import Any

from rl8 import AlgorithmConfig, RecurrentAlgorithmConfig
from rl8.env import ContinuousDummyEnv, DiscreteDummyEnv, Env
from tensordict import TensorDict
from torchrl.data import Categorical, Unbounded

from common import Clock, Simulation, Work, iterate, main


def play(work: Work, clock: Clock) -> None:
    class Cart(Env):
        def __init__(
            self, num_envs: int, /, horizon: int | None = None, *, config: Any = None, device: Any = "cpu"
        ) -> None:
            super().__init__(num_envs, horizon, device=device)
            self.observation_spec = Unbounded((4,))
            self.action_spec = Categorical(2, shape=(1,))
            self.simulation = Simulation(work)

        def reset(self, *, config: Any = None) -> Any:
            return self.simulation.reset()

        def step(self, action: Any) -> TensorDict:
            obs, rewards = self.simulation.step(action)
            return TensorDict({"obs": obs, "rewards": rewards}, self.num_envs)

    envs = {"discrete": DiscreteDummyEnv, "continuous": ContinuousDummyEnv, "cartpole": Cart}
    options: dict[str, Any] = {"num_envs": work.num_envs, "horizon": work.horizon, "device": "cpu"}
    options["num_sgd_iters"] = work.epochs
    if not work.recurrent:
        options["model_config"] = {"hiddens": work.hiddens, "activation_fn": work.activation}
    if work.minibatch < work.transitions:
        options["sgd_minibatch_size"] = work.minibatch
    config = (RecurrentAlgorithmConfig if work.recurrent else AlgorithmConfig)(**options)
    algorithm = config.build(envs[work.env])
    iterate(algorithm, clock)


if __name__ == "__main__":
    main(play)
