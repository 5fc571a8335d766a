"""R1: training that is killed at any moment goes on, and ends with the bits of what was never killed.

Real `rlstack train` processes are killed with SIGKILL, half of them while they write a checkpoint, and
started again with the same command until they are done.
"""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from rlstack.common.serialization import pack
from rlstack.runs import checkpoint
from rlstack.tracking.journal import JOURNAL, read_rows

COMMAND = (
    *("train", "cartpole", "num_envs=8", "horizon=8", "sgd_minibatch_size=16", "model_config.hiddens=[16]"),
    *("normalize_observations=True", "horizons_per_env_reset=3", "device=cpu", "--tracking", "off"),
    *("--checkpoint-every", "1", "--resume", "auto"),
)
UPDATES = 300
"""Of one training."""


def prove(directory: Path, count: int = 200, at_once: int = 2) -> dict[str, Any]:
    """Kill training so many times; return how often it went on, and whether it ended as it should."""
    share = -(-count // at_once)
    with ThreadPoolExecutor(at_once) as pool:
        parts = list(pool.map(lambda n: kill_often(directory / str(n), share, seed=n), range(at_once)))
    kills = sum(part["kills"] for part in parts)
    return {
        "held": kills >= count and all(part["held"] for part in parts),
        "kills": kills,
        "while_saving": sum(part["while_saving"] for part in parts),
        "before_the_first_checkpoint": sum(part["before_the_first_checkpoint"] for part in parts),
        "trainings": sum(part["trainings"] for part in parts),
        "faults": [fault for part in parts for fault in part["faults"]],
    }


def kill_often(directory: Path, count: int, seed: int, updates: int = UPDATES) -> dict[str, Any]:
    """Train, killed again and again; return the kills by kind, and what went wrong."""
    chance = random.Random(seed)
    found: dict[str, Any] = {"kills": 0, "while_saving": 0, "before_the_first_checkpoint": 0}
    found |= {"trainings": 0, "faults": []}
    whole = directory / "whole"
    process = start(whole, seed, updates)
    if process.wait() != 0:
        return {**found, "held": False, "faults": [end_of(process, whole)]}

    def is_enough() -> bool:
        return bool(found["kills"] >= count and 2 * found["while_saving"] >= count)

    while not is_enough():
        parts = directory / f"parts-{found['trainings']}"
        while True:
            process = start(parts, seed, updates)
            if is_enough():
                # It may end.
                break
            saving = 2 * found["while_saving"] <= found["kills"]
            killed = kill(process, parts / "checkpoints", chance, saving=saving)
            if killed is None:
                break
            found["kills"] += 1
            found["while_saving"] += killed == "saving"
            found["before_the_first_checkpoint"] += not checkpoint.numbered(parts / "checkpoints")
        found["trainings"] += 1
        process.wait()
        if process.returncode != 0:
            found["faults"].append(end_of(process, parts))
        elif not same(whole, parts):
            found["faults"].append(f"training {found['trainings']} ended with other bits")
    return {**found, "held": not found["faults"]}


def start(directory: Path, seed: int, updates: int) -> subprocess.Popen[bytes]:
    """Begin or go on with a training in a process."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "rlstack", *COMMAND, "--seed", str(seed), "--max-updates", str(updates)]
    with directory.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--run-dir", str(directory)],
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def kill(
    process: subprocess.Popen[bytes], checkpoints: Path, chance: random.Random, *, saving: bool
) -> str | None:
    """Kill a process while it writes a checkpoint, or at some moment; return which, None if it was done.

    At some moment: within the time that starting up and some updates take.
    """
    saves, moment = chance.randrange(1, 40), time.monotonic() + chance.uniform(0.1, 8.0)
    seen: set[str] = set()
    while process.poll() is None:
        partial = _partial(checkpoints) if saving else ""
        if partial:
            seen.add(partial)
        if (partial and len(seen) >= saves) or (not saving and time.monotonic() >= moment):
            time.sleep(chance.uniform(0, 0.0015) if saving else 0)
            process.send_signal(signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                return "saving" if partial and _partial(checkpoints) else "moment"
            return None
        time.sleep(0.0002 if saving else 0.01)
    return None


def _partial(checkpoints: Path) -> str:
    """Return the name of the checkpoint that is being written, nothing if there is none."""
    try:
        names = os.listdir(checkpoints)
    except FileNotFoundError:
        return ""
    return next((name for name in names if name.startswith(".ckpt-")), "")


def same(one: Path, other: Path) -> bool:
    """Return whether two runs ended with the same bits; of random states torch's, the others have no seed."""
    states = [checkpoint.read_latest(run / "checkpoints").state for run in (one, other)]
    (packed, tensors), (others, other_tensors) = (
        pack({**state, "random": state["random"]["torch"]}, "state") for state in states
    )
    equal = all(torch.equal(value, other_tensors[name]) for name, value in tensors.items())
    return packed == others and tensors.keys() == other_tensors.keys() and equal and same_metrics(one, other)


def same_metrics(one: Path, other: Path) -> bool:
    """Return whether two runs have the same rows, those that don't tell of the machine."""
    timeless = ("returns/", "rewards/", "losses/", "monitors/", "coefficients/", "algorithm/", "env/")
    journals = [
        [
            {key: value for key, value in row.metrics.items() if key.startswith(timeless)}
            for row in read_rows(run / JOURNAL)
        ]
        for run in (one, other)
    ]
    return journals[0] == journals[1]


def end_of(process: subprocess.Popen[bytes], directory: Path) -> str:
    """Return how the last process in a directory ended."""
    return f"exit {process.returncode}: {directory.with_suffix('.log').read_text()[-500:]}"
