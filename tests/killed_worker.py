"""`rlstack train` one of whose worker processes is killed with SIGKILL: how it ends, and how it goes on."""

import os
import signal
import subprocess
import sys
import time

import psutil
import yaml
from click.testing import CliRunner

from rlstack.cli.app import main
from rlstack.cli.arguments import ENVIRONMENT
from rlstack.runs.checkpoint import numbered

TINY = ("num_envs=2", "horizon=8", "sgd_minibatch_size=16", "model_config.hiddens=[8]", "device=cpu")


def check_killed_worker(directory, name, *options):
    """Kill a worker of a run while it trains, and let the run go on from its last checkpoint.

    Returns:
        The line in which the run has ended.
    """
    run = directory / "run"
    command = [sys.executable, "-m", "rlstack", "train", name, *options, *TINY, "--tracking", "off"]
    command += ["--run-dir", str(run), "--checkpoint-every", "1", "--max-time", "10m"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet) as process:
        while not numbered(run / "checkpoints"):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        workers = workers_of(process.pid)
        workers[-1].send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert process.returncode == ENVIRONMENT
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() for worker in workers)
    assert yaml.safe_load((run / "config.yaml").read_text())["env"] == name
    before = int(numbered(run / "checkpoints")[0].name.rpartition("-")[2])
    resumed = CliRunner().invoke(
        main, ["train", "--resume", str(run), "--max-updates", str(before + 2), "--tracking", "off"]
    )
    assert resumed.exit_code == 0, resumed.output
    assert f"after {before} updates" in resumed.output
    return said


def workers_of(pid):
    """Return the processes that step simulations for another one."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
