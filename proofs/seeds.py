"""R11: one seed, one result, bit by bit, in every process, also in one that compiles machine code first."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .kills import same

TRAININGS = (
    ("cartpole", "num_envs=32", "horizon=16", "sgd_minibatch_size=128"),
    ("pendulum", "num_envs=32", "horizon=16", "sgd_minibatch_size=128"),
    ("mountain-car", "num_envs=32", "horizon=16", "sgd_minibatch_size=128", "horizons_per_env_reset=3"),
    ("rlstack.env:CartPole", "num_envs=32", "horizon=16", "--algorithm", "recurrent"),
    ("rlstack.env:Pendulum", "num_envs=512", "horizon=32", "enable_amp=True"),
)


def prove(directory: Path) -> dict[str, Any]:
    """Train each twice, in two processes; return those whose results differ."""
    with ThreadPoolExecutor(2) as pool:
        faults = [fault for fault in pool.map(lambda n: one(directory, n), range(len(TRAININGS))) if fault]
    return {"held": not faults, "trainings": len(TRAININGS), "faults": faults}


def one(directory: Path, number: int) -> str:
    """Train twice; return what differs, nothing if all is well."""
    runs = [directory / f"{number}-{n}" for n in range(2)]
    for n, run in enumerate(runs):
        command = [sys.executable, "-m", "rlstack", "train", *TRAININGS[number], "device=cpu", "--seed", "3"]
        done = subprocess.run(
            [*command, "--max-updates", "20", "--tracking", "off", "--run-dir", str(run)],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": str(n),
                "OMP_NUM_THREADS": "1",
                "NUMBA_CACHE_DIR": str(directory / f"{number}-compiled"),
            },
            check=False,
        )
        if done.returncode != 0:
            return f"{TRAININGS[number]}: exit {done.returncode}: {done.stderr[-300:]}"
    equal = same(*runs) and len({(run / "policy.safetensors").read_bytes() for run in runs}) == 1
    return "" if equal else f"{TRAININGS[number]}: other bits"
