"""A success rate of the environment's own: MLflow shows it, and training ends once it is high enough.

python examples/success_rate.py [SHARE]
"""

import sys
from typing import Any

from quadrotor import OPTIONS, Quadrotor
from torch import Tensor

from rlstack import Trainer
from rlstack.conditions import HitsUpperBound


class Judged(Quadrotor):
    """Quadrotors that succeed where they are within 0.3 m of the origin, and slow."""

    def metrics(self) -> dict[str, Tensor]:
        """Return the share of those that do at the end of a horizon."""
        near, slow = self.position.norm(dim=1) < 0.3, self.velocity.norm(dim=1) < 0.3
        return {"success": (near & slow).float().mean()}


def main(share: float = 0.9, *, updates: int = 500, **changes: Any) -> Trainer:
    """Return a trainer that has trained until such a share succeeds."""
    trainer = Trainer(
        Judged,
        algorithm_config={**OPTIONS, **changes},
        stop_conditions=[HitsUpperBound("env/success", share), HitsUpperBound("algorithm/steps", updates)],
    )
    with trainer:
        last = trainer.run()
    print(f"{last['env/success']:.0%} succeed after {trainer.steps} updates: mlflow ui shows env/success")
    return trainer


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
