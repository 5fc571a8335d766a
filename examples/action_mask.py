"""Which of six jobs to do next, the urgent ones first: an action mask allows those that are left."""

import torch
from tensordict import TensorDict

from rlstack import Algorithm, Env
from rlstack.specs import Binary, Categorical, Composite, Unbounded


class Jobs(Env):
    """Six jobs of random urgency; the reward is minus the urgency of those that are left."""

    def __init__(self, num_envs: int, /, *, config: None = None, device: str = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        left = Binary(shape=(1, 6), dtype=torch.bool)
        self.observation_spec = Composite(urgency=Unbounded((6,)), left=left)
        self.action_spec = Categorical(6, shape=(1,))

    def reset(self, *, config: object = None) -> TensorDict:
        """Let all jobs be left."""
        self.urgency = torch.rand(self.num_envs, 6, device=self.device)
        self.left = torch.ones(self.num_envs, 1, 6, dtype=torch.bool, device=self.device)
        return TensorDict({"urgency": self.urgency, "left": self.left}, self.num_envs)

    def step(self, action: torch.Tensor) -> TensorDict:
        """Do the job `action` [B, 1]."""
        self.left = self.left.scatter(-1, action.unsqueeze(-1), value=False)
        rewards = -(self.urgency.unsqueeze(1) * self.left).sum(-1)
        obs = TensorDict({"urgency": self.urgency, "left": self.left}, self.num_envs)
        return TensorDict({"obs": obs, "rewards": rewards}, self.num_envs)


if __name__ == "__main__":
    masked = {"hiddens": [64, 64], "action_mask_key": "left"}
    algo = Algorithm(Jobs, num_envs=256, horizon=6, sgd_minibatch_size=256, model_config=masked, seed=0)
    for _ in range(40):
        algo.collect()
        algo.step()
    print(f"Urgency that waits: {-algo.eval()['returns/mean']:.2f}, at best 5.00")
