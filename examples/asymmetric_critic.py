"""A critic that knows more than the policy, which then acts without it."""

import torch
from tensordict import TensorDict

from rlstack import Algorithm, Policy, specs
from rlstack.env import Env


class Boat(Env):
    """Boats that are to stay at 0 in a current, which only a simulation knows."""

    def __init__(self, num_envs: int, /, *, config: dict[str, float] | None = None, device: str = "cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = specs.Composite(place=specs.Unbounded((1,)), current=specs.Unbounded((1,)))
        self.action_spec = specs.Bounded(-1.0, 1.0, (1,))

    def reset(self, *, config: object = None) -> TensorDict:
        """Put boats anywhere, each into a current of its own."""
        self.place, self.current = 2 * torch.rand(2, self.num_envs, 1, device=self.device) - 1
        return TensorDict({"place": self.place, "current": self.current}, batch_size=self.num_envs)

    def step(self, action: torch.Tensor) -> TensorDict:
        """Let each boat row, [B, 1], and drift."""
        self.place = self.place + 0.3 * action + 0.1 * self.current
        obs = TensorDict({"place": self.place, "current": self.current}, batch_size=self.num_envs)
        return TensorDict({"obs": obs, "rewards": -self.place.abs()}, batch_size=self.num_envs)


model_config = {"hiddens": [64, 64], "policy_keys": ["place"], "value_keys": ["place", "current"]}
algo = Algorithm(Boat, num_envs=256, horizon=32, gamma=0.9, seed=0, model_config=model_config)
for _ in range(20):
    algo.collect()
    algo.step()
algo.policy.save("boat.safetensors")
policy, place, current = Policy.load("boat.safetensors"), torch.ones(5, 1), torch.linspace(-1, 1, 5)[:, None]
for _ in range(100):
    step = policy.act(TensorDict({"place": place}, batch_size=5), deterministic=True)
    place = place + 0.3 * step.actions + 0.1 * current
print("Where boats have come that don't know their current:", *place.flatten().tolist())
