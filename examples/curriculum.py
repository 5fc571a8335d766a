"""A curriculum: quadrotors whose masses differ the more, the better they hover.

python examples/curriculum.py [SPREAD]
"""

import sys
from typing import Any

import torch
from quadrotor import OPTIONS, Quadrotor
from torch import Tensor

from rlstack import Trainer
from rlstack.conditions import HitsUpperBound


class Loaded(Quadrotor):
    """Quadrotors with masses within 1 ± `spread`, for whom the same rotors do less or more."""

    def __init__(self, num_envs: int, /, *, config: Any = None, device: Any = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.spread, self.mass = (
            torch.zeros(1, device=self.device),
            torch.ones(num_envs, 1, device=self.device),
        )

    def reset(self, *, config: Any = None) -> Tensor:
        """Put them anywhere, with other masses."""
        self.set_config(self.config if config is None else config)
        return super().reset()

    def set_config(self, config: Any) -> None:
        """Give them masses within another range, as they fly."""
        self.spread.fill_(config.get("spread", 0.0))
        self.mass = 1 + self.spread * (2 * torch.rand_like(self.mass) - 1)

    def step(self, action: Tensor) -> Any:
        """Let the rotors push."""
        return super().step(action / self.mass)

    def metrics(self) -> dict[str, Tensor]:
        """Return which share of them is within 0.3 m, and how much their masses may differ."""
        return {"near": (self.position.norm(dim=1) < 0.3).float().mean(), "spread": self.spread[0]}

    def state_dict(self) -> dict[str, Any]:
        """Return all that moves, and the masses."""
        return {**super().state_dict(), "spread": self.spread, "mass": self.mass}


def main(
    spread: float = 0.5, *, near: float = 0.8, run_dir: str = "runs/curriculum", **changes: Any
) -> Trainer:
    """Return a trainer that has widened the range whenever so large a share was near, up to a spread."""
    trainer = Trainer(
        Loaded,
        algorithm_config={**OPTIONS, **changes},
        stop_conditions=[HitsUpperBound("env/spread", spread), HitsUpperBound("algorithm/steps", 1000)],
        run_dir=run_dir,
        checkpoint_config={"best": "env/spread"},
    )
    config: dict[str, float] | None = None
    with trainer:
        while not trainer.done:
            stats = trainer.step(env_config=config)
            if stats["env/near"] >= near:
                config = {"spread": round(stats["env/spread"] + 0.05, 2)}
                print(f"update {trainer.steps}: {stats['env/near']:.0%} near, masses 1 ± {config['spread']}")
        trainer.save()
    return trainer


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
