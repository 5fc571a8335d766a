"""R13: a sweep that is killed at any moment loses no trial, and runs none twice.

A real `rlstack sweep` of two workers is killed with SIGKILL, all of its processes at once, and begun again by
the same command until it is over. Then each trial must be there once, and each run be the one that was begun,
with each of its updates once; and the best point must beat the defaults with seeds that the sweep never saw.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

from rlstack.cli.sweep_file import config_in
from rlstack.runs import checkpoint
from rlstack.sweeps.study import Sweep
from rlstack.sweeps.summary import Row, rows
from rlstack.tracking.journal import JOURNAL, read_rows

TASK: dict[str, Any] = {
    "env": "rlstack.env:CartPole",
    "algorithm_config": {
        "num_envs": 32,
        "horizon": 32,
        "sgd_minibatch_size": 256,
        "model_config": {"hiddens": [32]},
        "device": "cpu",
    },
    "trainer": {"checkpoint_config": {"every_updates": 3}},
}
SEARCH = {
    "optimizer_config.lr": {"low": 1e-4, "high": 3e-2, "log": True},
    "num_sgd_iters": {"low": 1, "high": 8},
    "gamma": {"low": 0.8, "high": 0.99},
}
SEEDS, FRESH = [0, 1], [100, 101, 102]
"""Of the sweep, and those that its best point is judged with."""


def prove(directory: Path, trials: int = 20, kills: int = 3, updates: int = 40) -> dict[str, Any]:
    """Kill a sweep so many times; return what became of its trials, and how good the best point is."""
    said = {"search": SEARCH, "trials": trials, "seeds": SEEDS, "max_updates": updates}
    file, home = directory / "sweep.yaml", directory / "sweep"
    # JSON is YAML, too.
    file.write_text(json.dumps({**TASK, "sweep": said}))
    command = ["sweep", "-f", str(file), "--run-dir", str(home), "--jobs", "2", "--tracking", "off"]
    chance, begun = random.Random(0), dict[str, str]()
    faults: list[str] = []
    for _ in range(kills):
        process = start(command, directory)
        if not kill(process, home, chance):
            faults.append(f"it was over before it was killed {kills} times")
            break
        faults += [f"{name} was begun anew" for name in changed(begun, identities(home))]
    process = start(command, directory)
    if process.wait():
        faults.append((directory / "sweep.log").read_text()[-500:])
    faults += [f"{name} was begun anew" for name in changed(begun, identities(home))]
    found = rows(Sweep(home, config_in(home)))
    faults += list(wrong(home, found, trials, updates))
    best, default = (score(directory / name, point, updates) for name, point in points(found))
    return {
        "held": not faults and best > default,
        "kills": kills,
        "trials": len(found),
        "pruned": sum(row.state == "pruned" for row in found),
        "attempts": sum(row.attempts for row in found),
        "returns_of_the_best": round(best, 3),
        "returns_of_the_defaults": round(default, 3),
        "faults": faults,
    }


def start(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    """Begin or go on with a command of rlstack's in a process."""
    with (directory / f"{command[0]}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "rlstack", *command],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def kill(process: subprocess.Popen[bytes], home: Path, chance: random.Random) -> bool:
    """Kill a sweep with all its workers while these train; return whether it wasn't over before."""
    enough = updates_of(home) + chance.randrange(10, 250)
    while updates_of(home) < enough:
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    everybody = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in everybody:
        each.send_signal(signal.SIGKILL)
    psutil.wait_procs(everybody[1:], timeout=30)
    return process.wait() == -signal.SIGKILL


def updates_of(home: Path) -> int:
    """Return how many updates all runs have made."""
    return sum(path.read_bytes().count(b"\n") for path in home.glob(f"trial-*/{JOURNAL}"))


def identities(home: Path) -> Iterator[tuple[str, str]]:
    """Yield the runs that have checkpoints, and what their configurations say they are."""
    for run in home.glob("trial-*"):
        if checkpoint.numbered(run / "checkpoints"):
            yield run.name, (run / "config.yaml").read_text().partition("\n")[0]


def changed(begun: dict[str, str], now: Iterator[tuple[str, str]]) -> list[str]:
    """Return which runs aren't what they were, and take down those that are new."""
    return [name for name, identity in now if begun.setdefault(name, identity) != identity]


def wrong(home: Path, found: list[Row], trials: int, updates: int) -> Iterator[str]:
    """Yield what is wrong with the trials of a sweep that is over."""
    if sorted(row.trial for row in found) != [*range(trials)]:
        yield f"its trials are {sorted(row.trial for row in found)}"
    there = {path.name for path in home.glob("trial-*")}
    for row in found:
        if row.state not in ("complete", "pruned"):
            yield f"trial {row.trial} is {row.state}"
        for seed in SEEDS:
            name = f"trial-{row.trial}-seed-{seed}"
            if name not in there:
                if row.state == "complete":
                    yield f"{name} isn't there"
                continue
            there.remove(name)
            steps = [int(each.metrics["algorithm/steps"]) for each in read_rows(home / name / JOURNAL)]
            if steps != [*range(1, len(steps) + 1)] or (row.state == "complete" and len(steps) != updates):
                yield f"{name} has the updates {steps}"
    if there:
        yield f"{', '.join(there)} belong to no trial"


def points(found: list[Row]) -> list[tuple[str, dict[str, Any]]]:
    """Return the best point and that of the defaults, by names."""
    return [("best", found[0].params), ("default", {})]


def score(home: Path, point: dict[str, Any], updates: int) -> float:
    """Train at a point with seeds that are new; return the mean of the last tenth's returns."""
    home.mkdir()
    file = home / "config.json"
    file.write_text(json.dumps(TASK))
    values = [f"{name}={value}" for name, value in point.items()]
    scores = []
    for seed in FRESH:
        run = ["--seed", str(seed), "--run-dir", str(home / str(seed)), "--tracking", "off"]
        start(["train", "-f", str(file), *values, "--max-updates", str(updates), *run], home).wait()
        last = [row.metrics["returns/mean"] for row in read_rows(home / str(seed) / JOURNAL)]
        scores.append(fmean(last[-(updates // 10) :]))
    return fmean(scores)
