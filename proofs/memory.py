"""R12: memory is flat: less than 1 KB for an update, tracking and checkpoints included."""

import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """
import sys, psutil
from rlstack import Trainer
from rlstack.conditions import HitsUpperBound
from rlstack.env import DiscreteDummyEnv
updates, warm = int(sys.argv[1]), int(sys.argv[2])
config = {"num_envs": 8, "horizon": 4, "model_config": {"hiddens": [8]}, "num_sgd_iters": 1, "device": "cpu"}
trainer = Trainer(
    DiscreteDummyEnv,
    algorithm_config=config,
    run_dir=sys.argv[3],
    checkpoint_config={"every_updates": 500},
)
sizes = []
for stats in trainer.updates(stop_conditions=[HitsUpperBound("algorithm/steps", updates)]):
    if trainer.steps in (warm, updates):
        sizes.append(psutil.Process().memory_info().rss)
print((sizes[1] - sizes[0]) / (updates - warm))
"""


def prove(directory: Path, updates: int = 20_000, warm: int = 5_000) -> dict[str, Any]:
    """Make so many updates in a process of their own; return the bytes that each left behind."""
    command = [sys.executable, "-c", SCRIPT, str(updates), str(warm), str(directory / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory, check=False)
    if done.returncode != 0:
        return {"held": False, "faults": [done.stderr[-500:]]}
    size = float(done.stdout.split()[-1])
    return {"held": size < 1024, "updates": updates, "bytes_per_update": round(size, 1)}
