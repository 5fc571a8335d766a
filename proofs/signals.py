"""R9: SIGINT, SIGTERM and SIGHUP let an update end and leave a checkpoint; a second one ends at once.

SIGUSR1 leaves one, too, and training goes on.
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

from rlstack.common.errors import CheckpointError
from rlstack.runs import checkpoint

COMMAND = (
    *("train", "cartpole", "num_envs=8", "horizon=8", "sgd_minibatch_size=16", "model_config.hiddens=[16]"),
    *("device=cpu", "env_config.gravity=500.0", "--tracking", "off"),
)
"""Under such gravity it is never solved."""


def prove(directory: Path, count: int = 50) -> dict[str, Any]:
    """Send signals to trainings at random moments; return how they ended if not as they should."""
    with ThreadPoolExecutor(2) as pool:
        faults = [fault for fault in pool.map(lambda n: one(directory / str(n), n), range(count)) if fault]
    return {"held": not faults, "signals": count, "faults": faults}


def one(directory: Path, number: int) -> str:
    """Interrupt one training; return what was wrong with its end, nothing if all was well.

    Two of four are interrupted twice; before that each is asked for a checkpoint.
    """
    chance = random.Random(number)
    signum = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[number % 3]
    twice = number % 4 >= 2
    process = subprocess.Popen(
        [sys.executable, "-m", "rlstack", *COMMAND, "--run-dir", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    with process:
        said = ""
        while "update" not in said and (line := process.stdout.readline()):
            said += line
        process.send_signal(signal.SIGUSR1)
        asked = time.monotonic()
        while not checkpoint.numbered(directory / "checkpoints"):
            if process.poll() is not None or time.monotonic() - asked > 60:
                process.kill()
                return f"SIGUSR1: exit {process.poll()}, no checkpoint"
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 1.5))
        process.send_signal(signum)
        if twice:
            time.sleep(chance.uniform(0, 0.01))
            process.send_signal(signum)
        try:
            said += process.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return f"{signum.name}: it went on"
    # The second signal may find the process past the point where it handles signals.
    codes = {128 + signum} | ({-signum} if twice else set())
    if process.returncode not in codes or "Traceback" in said:
        return f"{signum.name}: exit {process.returncode}: {said[-500:]}"
    if not twice or (signum == signal.SIGHUP and process.returncode > 0):
        try:
            updates = checkpoint.read_latest(directory / "checkpoints").info["updates"]
        except CheckpointError as error:
            return f"{signum.name}: {error}"
        if f"after {updates} updates" not in said:
            return f"{signum.name}: the checkpoint is of update {updates}: {said[-500:]}"
    return ""
