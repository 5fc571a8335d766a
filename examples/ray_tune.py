"""The search of sweep.yaml on Ray Tune: the same trainer, in a function, with a condition that reports.

pip install 'rlstack[ray]'
python examples/ray_tune.py [DIR]
"""

import sys
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from rlstack import Trainer
from rlstack.common.nested import merge, unflatten
from rlstack.common.types import Stats
from rlstack.conditions import Condition, HitsUpperBound
from rlstack.env import CartPole

FILE = yaml.safe_load(Path(__file__).with_name("sweep.yaml").read_text())
SWEEP = FILE["sweep"]


class Reports(Condition):
    """Reports the statistics of every update to Ray Tune, which ends trials that aren't worth it itself."""

    def __call__(self, stats: Stats) -> bool:
        """Report; the trial goes on."""
        tune.report({"value": stats[SWEEP["metric"]], "updates": stats["algorithm/steps"]})
        return False


def train(point: dict[str, Any]) -> None:
    """Train at a point of the search space; a trial that is tried again goes on where it was."""
    run_dir = Path(tune.get_context().get_trial_dir()) / "run"
    stop = [Reports(), HitsUpperBound("algorithm/steps", SWEEP["max_updates"])]
    if (run_dir / "checkpoints").is_dir():
        trainer = Trainer.resume(run_dir, stop_conditions=stop, track=False)
    else:
        config = merge(FILE["algorithm_config"], unflatten(point))
        trainer = Trainer(
            CartPole,
            algorithm_config=config,
            run_dir=run_dir,
            checkpoint_config={"every_updates": 5},
            stop_conditions=stop,
            track=False,
        )
    with trainer:
        trainer.run()


def space(search: dict[str, Any]) -> dict[str, Any]:
    """Return the search space of a file as Ray Tune takes it."""
    dimensions = {}
    for name, said in search.items():
        if isinstance(said, list):
            dimensions[name] = tune.choice(said)
        elif said.get("log"):
            dimensions[name] = tune.loguniform(said["low"], said["high"])
        elif isinstance(said["low"], int):
            # Its upper bound is left out.
            dimensions[name] = tune.randint(said["low"], said["high"] + 1)
        else:
            dimensions[name] = tune.uniform(said["low"], said["high"])
    return dimensions


def main(directory: str = "runs/tune", *, trials: int = SWEEP["trials"]) -> tune.ResultGrid:
    """Search, two trials at a time on two cores; return what came of it."""
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={**space(SWEEP["search"]), "seed": tune.choice(SWEEP["seeds"])},
        tune_config=tune.TuneConfig(
            metric="value",
            mode="max",
            num_samples=trials,
            scheduler=ASHAScheduler(time_attr="updates", grace_period=5, max_t=SWEEP["max_updates"]),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(Path(directory).absolute()),
            failure_config=tune.FailureConfig(max_failures=3),
        ),
    )
    results = tuner.fit()
    best = results.get_best_result()
    print(f"Best: {best.metrics['value']:.4g} at {best.config}")
    return results


if __name__ == "__main__":
    ray.init(include_dashboard=False)
    main(*sys.argv[1:2])
