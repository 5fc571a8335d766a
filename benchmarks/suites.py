"""Tasks with published results, trained by `rlstack train` and judged in the simulators' own environments.

A run that is finished is in `results/suites.json` and is never made again; one that was interrupted goes on
from its run directory. `suite_pages.py` makes tables and pictures of them.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from episodes import play, play_suite
from rlstack import Policy
from rlstack.tracking.journal import JOURNAL, read_rows

RECORDS = Path(__file__).parent / "results" / "suites.json"

_POINTS = 50
"""Of a learning curve, at most."""


@dataclass(frozen=True)
class Task:
    """A task, and what is known of it."""

    name: str
    """As `rlstack train` takes it."""
    env_steps: int
    """After how many transitions training ends."""
    target: float
    """The mean return to reach."""
    published: str
    """What others have published, with the version of the environment."""
    episodes: int = 20
    """How many judge a policy."""


_MILLION = 1_000_000

_DM = (
    ("cartpole-swingup", 641.0, "CleanRL 641 · SLM-Lab 729 (Playground, 100 M)"),
    ("cheetah-run", 433.0, "CleanRL 433 · SLM-Lab 883 (Playground, 100 M)"),
    ("reacher-easy", 626.0, "CleanRL 626 · SLM-Lab 955 (Playground, 100 M)"),
    ("walker-walk", 393.0, "CleanRL 393 · SLM-Lab 945 (Playground, 100 M)"),
)

SUITES: dict[str, tuple[Task, ...]] = {
    "gym": (
        Task(
            "gym:HalfCheetah-v5",
            _MILLION,
            6000.0,
            "CleanRL 1,443 ± 46 (v2) · rl-zoo 5,819 ± 664 (v3) · Tianshou 5,784 ± 1,244 (v3)",
        ),
        Task("gym:Hopper-v5", _MILLION, 2609.0, "rl-zoo 2,410 ± 10 (v3) · Tianshou 2,609 (v3)"),
        Task("gym:Walker2d-v5", _MILLION, 3588.0, "rl-zoo 3,479 ± 822 (v3) · Tianshou 3,588 (v3)"),
        Task("gym:Swimmer-v5", _MILLION, 280.0, "rl-zoo 281.6 ± 9.7 (v3) · Tianshou 67 (v3)"),
        Task("gym:Reacher-v5", _MILLION, -4.5, "Tianshou -4.1 (v2)"),
        Task("gym:Ant-v5", _MILLION, 3258.0, "rl-zoo 1,327 ± 452 (v3) · Tianshou 3,258 (v3)"),
    ),
    "dm": tuple(Task(f"dm:{name}", 8 * _MILLION, target, said) for name, target, said in _DM),
    "classic": (
        Task("gym:CartPole-v1", 500_000, 500.0, "rl-zoo 500 ± 0 (100 k)", 100),
        Task("gym:Acrobot-v1", _MILLION, -75.0, "rl-zoo -73.5 ± 18.2", 100),
        Task("gym:MountainCarContinuous-v0", 300_000, 93.0, "rl-zoo 88.3 ± 2.6 (20 k, gSDE)", 100),
        Task("gym:LunarLander-v3", _MILLION, 250.0, "–", 100),
    ),
}


PACKAGES = {"gym": ("gymnasium", "mujoco"), "dm": ("dm-control", "mujoco"), "classic": ("gymnasium",)}
"""What a suite's results depend on, beside rlstack and torch."""


def records() -> list[dict[str, Any]]:
    """Return what is known of the runs that are finished."""
    return json.loads(RECORDS.read_text()) if RECORDS.exists() else []


def add(record: dict[str, Any]) -> None:
    """Keep a record; a file that is half written never takes the place of the others."""
    beside = RECORDS.with_suffix(".new")
    lines = ",\n".join(json.dumps(each) for each in [*records(), record])
    beside.write_text(f"[\n{lines}\n]\n")
    os.replace(beside, RECORDS)


def command(task: Task, seed: int) -> list[str]:
    """Return what trains a policy, from `rlstack` on."""
    return ["rlstack", "train", task.name, "--seed", str(seed), "--max-env-steps", str(task.env_steps)]


def train(task: Task, seed: int, directory: Path) -> None:
    """Train a policy, or go on with that; what is left lies in the directory."""
    options = [
        "--run-dir",
        str(directory),
        "--resume",
        "auto",
        "--checkpoint-every",
        "2m",
        "--tracking",
        "off",
    ]
    line = [sys.executable, "-m", *command(task, seed), *options]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def curve(steps: np.ndarray, returns: np.ndarray) -> list[list[float]]:
    """Return the means of neighboring points: at most `_POINTS` of [environment steps, return]."""
    parts = [part for part in np.array_split(np.stack([steps, returns], -1), _POINTS) if len(part)]
    return [[round(float(value), 2) for value in part.mean(0)] for part in parts]


def judged(task: Task, seed: int, directory: Path, packages: tuple[str, ...]) -> dict[str, Any]:
    """Return the record of a run that is finished, with versions of these packages."""
    policy = Policy.load(directory / "policy.safetensors")
    simulator, _, name = task.name.partition(":")
    found = (play_suite if simulator == "dm" else play)(name, policy, task.episodes)
    rows = [row.metrics for row in read_rows(directory / JOURNAL)]
    ended = [row for row in rows if "episodes/returns/mean" in row]
    points = ([row[key] for row in ended] for key in ("env/total_steps", "episodes/returns/mean"))
    busy = sum(row["profiling/collect_ms"] + row["profiling/step_ms"] for row in rows)
    return {
        "task": task.name,
        "seed": seed,
        "env_steps": int(rows[-1]["env/total_steps"]),
        "seconds": round(busy / 1000, 1),
        "episodes": task.episodes,
        "mean": round(float(found.returns.mean()), 2),
        "std": round(float(found.returns.std()), 2),
        "worst": round(float(found.returns.min()), 2),
        "command": " ".join(command(task, seed)),
        "date": str(datetime.date.today()),
        "machine": f"{os.cpu_count()} cores ({platform.machine()})",
        "versions": {package: version(package) for package in ("rlstack", "torch", *packages)},
        "curve": curve(*map(np.array, points)),
    }


def run(suite: str, names: list[str] | None, seeds: list[int], runs: Path) -> None:
    """Make the runs of a suite that aren't finished, seed by seed.

    Args:
        suite: Which one.
        names: Of its tasks; None is all.
        seeds: One run of a task for each.
        runs: Where run directories lie.
    """
    for seed in seeds:
        for task in SUITES[suite]:
            done = any((record["task"], record["seed"]) == (task.name, seed) for record in records())
            if done or (names and task.name not in names):
                continue
            directory = runs / f"{task.name.replace(':', '-')}-{seed}"
            train(task, seed, directory)
            record = judged(task, seed, directory, PACKAGES[suite])
            add(record)
            said = f"{record['mean']:,.1f} ± {record['std']:,.1f} in {task.episodes} episodes"
            print(f"{task.name}, seed {seed}: {said}, after {record['seconds']:,.0f} s", flush=True)
