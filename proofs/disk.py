"""R8: a full disk leaves the last checkpoint as it was, and training goes on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """
import resource, signal, sys
from pathlib import Path
from rlstack import Trainer
from rlstack.runs import checkpoint
from rlstack.env import CartPole
from rlstack.tracking.journal import JOURNAL, read_rows
directory, how = Path(sys.argv[1]), sys.argv[2]
config = {"num_envs": 8, "horizon": 8, "model_config": {"hiddens": [32]}, "device": "cpu"}
trainer = Trainer(
    CartPole,
    algorithm_config=config,
    run_dir=directory / "run",
    checkpoint_config={"every_updates": 1, "every_seconds": None},
    track=False,
)
checkpoints = trainer.run_dir.checkpoints
trainer.step()
trainer.step()
assert checkpoint.read_latest(checkpoints).info["updates"] == 2
ballast = directory / "ballast"
if how == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
else:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            pass
for number in range(3, 8):
    assert trainer.step()["algorithm/steps"] == number
    # What was there before the disk was full is there, and sound.
    assert checkpoint.read_latest(checkpoints).info["updates"] == 2
    assert not list(checkpoints.glob(".ckpt-*"))
if how == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ballast.unlink(missing_ok=True)
trainer.step()
assert checkpoint.read_latest(checkpoints).info["updates"] == 8
trainer.close()
# Metrics waited for the disk.
assert [row.metrics["algorithm/steps"] for row in read_rows(directory / "run" / JOURNAL)] == list(range(1, 9))
"""


def prove(directory: Path) -> dict[str, Any]:
    """Train on a small file system and under a limit of file sizes; return what went wrong."""
    faults = [one(directory, "limit")]
    small = directory / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode == 0:
        try:
            faults.append(one(small, "ballast"))
        finally:
            subprocess.run(["umount", str(small)], check=True)
    faults = [fault for fault in faults if fault]
    return {"held": not faults, "tmpfs": mounted.returncode == 0, "faults": faults}


def one(directory: Path, how: str) -> str:
    """Return what went wrong in one way of filling the disk, nothing if all was well."""
    command = [sys.executable, "-c", SCRIPT, str(directory), how]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    warned = done.stderr.count("no checkpoint could be written, training goes on")
    waited = done.stderr.count("rows wait in memory")
    return (
        ""
        if done.returncode == 0 and warned == 5 and waited == 1
        else f"{how}: {warned} warnings: {done.stderr[-500:]}"
    )
