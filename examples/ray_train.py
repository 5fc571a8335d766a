"""CartPole on two workers of Ray Train, from checkpoint to checkpoint, whatever becomes of the workers.

pip install 'rlstack[ray]'; python examples/ray_train.py DIRECTORY. All workers must see the directory.
"""

import sys
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from rlstack import Trainer
from rlstack.conditions import HitsUpperBound
from rlstack.env import CartPole

HYPERPARAMETERS: dict[str, Any] = {
    "num_envs": 256,
    "horizon": 64,
    "gamma": 0.98,
    "sgd_minibatch_size": 2048,
    "model_config": {"hiddens": [64, 64], "activation_fn": "tanh"},
    "seed": 0,
}


def work(config: dict[str, Any]) -> None:
    """Train as one of the workers: the trainer finds the others by the process group that Ray has made."""
    stop = [HitsUpperBound("returns/mean", config["goal"]), HitsUpperBound("algorithm/steps", 300)]
    is_first = ray.train.get_context().get_world_rank() == 0
    with Trainer(CartPole, algorithm_config=HYPERPARAMETERS, stop_conditions=stop, track=False) as trainer:
        if before := ray.train.get_checkpoint():
            with before.as_directory() as directory:
                trainer.load(directory)
        for stats in trainer.updates():
            # All workers write their part of it, and the first one reports the whole.
            path = trainer.save(config["checkpoints"]) if trainer.steps % config["every"] == 0 else None
            whole = Checkpoint.from_directory(path) if path and is_first else None
            ray.train.report({**stats, "workers": trainer.algorithm.ranks.count}, checkpoint=whole)


def train(directory: Path, *, goal: float = 60.0, every: int = 10, **config: Any) -> ray.train.Result:
    """Return what Ray has of the training; `goal` is the mean return of a horizon of 64 steps."""
    trainer = TorchTrainer(
        work,
        train_loop_config={"goal": goal, "every": every, "checkpoints": str(directory / "written"), **config},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            name="cartpole", storage_path=str(directory / "ray"), failure_config=FailureConfig(max_failures=3)
        ),
    )
    return trainer.fit()


if __name__ == "__main__":
    print(train(Path(sys.argv[1]).absolute()).metrics)
