"""An environment of one's own, with nested observations, and what a recurrent policy is good for.

    python examples/hidden_velocity.py

A puck slides on a table without friction and is to be brought to a target. It sees where it is, but not how
fast it moves: a feedforward policy can't brake in time, a recurrent one remembers where it was.
"""

import sys
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from rlstack import Algorithm, RecurrentAlgorithm
from rlstack.env import Env
from rlstack.specs import Bounded, Composite, Unbounded


class Puck(Env):
    """Pucks on a table, pushed in two directions; the reward is minus the distance to the target."""

    def __init__(self, num_envs: int, /, *, config: Any = None, device: Any = "cpu") -> None:
        super().__init__(num_envs, config={"push": 0.2, **(config or {})}, device=device)
        self.observation_spec = Composite(position=Unbounded((2,)), target=Unbounded((2,)))
        self.action_spec = Bounded(-1.0, 1.0, (2,))

    def reset(self, *, config: Any = None) -> TensorDict:
        """Put pucks and targets anywhere on the table, the pucks at rest."""
        self.config.update(config or {})
        self.position, self.target = 2 * torch.rand(2, self.num_envs, 2, device=self.device) - 1
        self.velocity = torch.zeros_like(self.position)
        return self._obs()

    def step(self, action: Tensor) -> TensorDict:
        """Push each puck by [B, 2] and let it slide on."""
        self.velocity = self.velocity + self.config["push"] * action
        self.position = self.position + 0.5 * self.velocity
        distance = (self.position - self.target).norm(dim=-1, keepdim=True)
        return TensorDict({"obs": self._obs(), "rewards": -distance}, batch_size=self.num_envs)

    def _obs(self) -> TensorDict:
        return TensorDict({"position": self.position, "target": self.target}, batch_size=self.num_envs)


def train(algorithm_cls: type[Algorithm] | type[RecurrentAlgorithm], updates: int, **changes: Any) -> float:
    """Return the mean distance to the target after so many updates."""
    algorithm = algorithm_cls(Puck, num_envs=256, horizon=32, gamma=0.9, seed=0, **changes)
    for update in range(updates):
        stats = algorithm.collect()
        algorithm.step()
        if update % 20 == 0:
            print(f"  update {update:3}: mean distance {-stats['rewards/mean']:.3f}", flush=True)
    return -algorithm.eval()["rewards/mean"]


def main(updates: int = 120) -> tuple[float, float]:
    print("Feedforward, 1024 transitions per minibatch")
    blind = train(Algorithm, updates, sgd_minibatch_size=1024, model_config={"hiddens": [64, 64]})
    print("Recurrent, 128 sequences of 8 per minibatch")
    sighted = train(
        RecurrentAlgorithm, updates, seq_len=8, sgd_minibatch_size=128, model_config={"hidden_size": 64}
    )
    print(f"Mean distance to the target: feedforward {blind:.3f}, recurrent {sighted:.3f}")
    return blind, sighted


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
