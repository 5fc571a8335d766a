"""R14: training of several ranks goes on after one is killed, names one that is stopped, and stays one.

Real `torchrun` launchers, each with two `rlstack train` processes: a rank is killed with SIGKILL again and
again, one is stopped with SIGSTOP, the launcher is ended with SIGTERM, and 200 updates leave the ranks with
the same parameters to the bit.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from rlstack.common.errors import CheckpointError
from rlstack.runs import checkpoint

COMMAND = (
    *("-m", "rlstack", "train", "rlstack.env:CartPole", "num_envs=8", "horizon=8", "sgd_minibatch_size=16"),
    *("model_config.hiddens=[16]", "normalize_observations=True", "device=cpu", "--tracking", "off"),
    *("--checkpoint-every", "1", "--resume", "auto", "--seed", "0"),
)


def prove(directory: Path, count: int = 20, updates: int = 200) -> dict[str, Any]:
    """Do all of it; return what was found."""
    found = {
        "killed": kill_often(directory / "killed", count),
        "ended": end(directory / "ended"),
        "stopped": stop(directory / "stopped"),
        "same": stay_one(directory / "same", updates),
    }
    return {"held": all(part["held"] for part in found.values()), **found}


def start(directory: Path, *more: str, restarts: int = 0) -> subprocess.Popen[bytes]:
    """Begin or go on with a training of two ranks."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with directory.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [*launcher, f"--max-restarts={restarts}", *COMMAND, "--run-dir", str(directory), *more],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def ranks_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return a launcher's ranks, once both are there; none if it has ended."""
    while process.poll() is None:
        found = [each for each in psutil.Process(process.pid).children() if "train" in _command(each)]
        if len(found) == 2:
            return sorted(found, key=lambda each: int(each.environ().get("RANK", -1)))
        time.sleep(0.05)
    return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def saved(directory: Path) -> int:
    """Return how many updates the last checkpoint is of, -1 if there is none."""
    last = checkpoint.numbered(directory / "checkpoints")[:1]
    return int(last[0].name.rpartition("-")[2]) if last else -1


def wait_for(directory: Path, process: subprocess.Popen[bytes], updates: int, most: float = 300.0) -> bool:
    """Wait until a checkpoint of so many updates is there; return whether it is."""
    start = time.monotonic()
    while saved(directory) < updates:
        if process.poll() is not None or time.monotonic() - start > most:
            return False
        time.sleep(0.05)
    return True


def kill_often(directory: Path, count: int) -> dict[str, Any]:
    """Kill a rank so many times, at random; the launcher begins all again, and they go on."""
    chance, faults, last = random.Random(0), [], -1
    process = start(directory, "--max-updates", str(10**6), restarts=count)
    for number in range(count):
        if not wait_for(directory, process, last + 1):
            faults.append(f"nobody went on after kill {number}: {tail(directory)}")
            break
        time.sleep(chance.uniform(0, 2))
        last = saved(directory)
        chance.choice(ranks_of(process)).kill()
    else:
        if not wait_for(directory, process, last + 1):
            faults.append(f"nobody went on after the last kill: {tail(directory)}")
    finish(process)
    return {"held": not faults, "kills": count, "updates": saved(directory), "faults": faults}


def finish(process: subprocess.Popen[bytes], most: float = 120.0) -> float:
    """End a launcher with SIGTERM; return how long that took, s."""
    start = time.monotonic()
    process.terminate()
    try:
        process.wait(most)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return round(time.monotonic() - start, 1)


def end(directory: Path) -> dict[str, Any]:
    """End the launcher; return whether the ranks have left a checkpoint that loads."""
    process = start(directory, "--max-updates", str(10**6), "--checkpoint-every", "1000000")
    children, began = ranks_of(process), time.monotonic()
    journal = directory / "metrics.jsonl"
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() - began < 300:
        time.sleep(0.1)
    seconds = finish(process)
    try:
        said = checkpoint.read_latest(directory / "checkpoints")
    except CheckpointError as error:
        return {"held": False, "faults": [str(error), tail(directory)], "ranks": len(children)}
    return {"held": said.ranks == 2, "updates": said.info["updates"], "seconds": seconds}


def stop(directory: Path) -> dict[str, Any]:
    """Stop a rank; return whether the other one names it, and how long that took."""
    process = start(directory, "--max-updates", str(10**6))
    if not wait_for(directory, process, 3):
        finish(process)
        return {"held": False, "faults": [tail(directory)]}
    other = ranks_of(process)[1]
    other.suspend()
    began = time.monotonic()
    name = f"rank 1 (host {os.uname().nodename}, process {other.pid}) is dead or stopped"
    while name not in (said := directory.with_suffix(".log").read_text()) and time.monotonic() - began < 180:
        time.sleep(0.2)
    seconds = round(time.monotonic() - began, 1)
    other.kill()
    finish(process)
    checkpoint.read_latest(directory / "checkpoints")
    return {"held": name in said, "seconds": seconds, "faults": [] if name in said else [said[-500:]]}


def stay_one(directory: Path, updates: int) -> dict[str, Any]:
    """Train; return whether both ranks had the same parameters, to the bit, after every update.

    They compare them themselves, in each horizon, and end with the name of the one that has others.
    """
    process = start(directory, "--max-updates", str(updates))
    code = process.wait()
    held = code == 0 and saved(directory) == updates
    return {"held": held, "updates": saved(directory), "faults": [] if held else [tail(directory)]}


def tail(directory: Path) -> str:
    """Return the end of what was printed."""
    return directory.with_suffix(".log").read_text(errors="replace")[-800:]
