"""A curriculum: quadrotors whose masses differ the more, the better they hover."""

import torch
from quadrotor import OPTIONS, Quadrotor
from tensordict import TensorDict

from rlstack import Trainer, conditions
from rlstack.common.types import Config


class Loaded(Quadrotor):
    """Quadrotors with masses within 1 ± `spread`, for whom the same rotors do less or more."""

    def reset(self, *, config: Config | None = None) -> torch.Tensor:
        """Put them anywhere, with other masses."""
        self.set_config(self.config if config is None else config)
        return super().reset()

    def set_config(self, config: Config) -> None:
        """Give them masses within another range, as they fly."""
        self.spread = torch.tensor(config.get("spread", 0.0), device=self.device)
        self.mass = 1 + self.spread * (2 * torch.rand(self.num_envs, 1, device=self.device) - 1)

    def step(self, action: torch.Tensor) -> TensorDict:
        """Let the rotors push."""
        return super().step(action / self.mass)

    def metrics(self) -> dict[str, torch.Tensor]:
        """Return which share of them is within 0.3 m, and how much their masses may differ."""
        return {"near": (self.position.norm(dim=1) < 0.3).float().mean(), "spread": self.spread}


if __name__ == "__main__":
    goal, config = conditions.HitsUpperBound("env/spread", 0.5), None
    with Trainer(Loaded, algorithm_config=OPTIONS, stop_conditions=[goal], run_dir="curriculum") as trainer:
        while not trainer.done:
            stats = trainer.step(env_config=config)
            print(f"{stats['env/near']:.0%} near, masses 1 ± {stats['env/spread']:.2f}")
            config = {"spread": round(stats["env/spread"] + 0.05, 2)} if stats["env/near"] >= 0.8 else None
        trainer.save()
