"""Ray Train, on a real cluster of this machine's own."""

import os
import runpy
import signal
import threading
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

import psutil

from rlstack.runs import checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_train.py"


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_two_workers_solve_cartpole_and_one_that_is_killed_costs_nothing(cluster, tmp_path):
    import sys

    # Workers import it by its name.
    sys.path.insert(0, str(EXAMPLE.parent))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(EXAMPLE.parent), *sys.path])
    train = runpy.run_path(str(EXAMPLE))["train"]
    written = tmp_path / "written"
    killed = []

    def kill():
        while not checkpoint.numbered(written):
            time.sleep(0.2)
        workers = [
            each
            for each in psutil.Process().children(recursive=True) + list(psutil.process_iter(["cmdline"]))
            if "RayTrainWorker" in " ".join(each.cmdline() if each.is_running() else [])
        ]
        os.kill(workers[0].pid, signal.SIGKILL)
        killed.append(checkpoint.numbered(written)[0].name)

    threading.Thread(target=kill, daemon=True).start()
    result = train(tmp_path)
    assert killed
    assert result.metrics["workers"] == 2
    assert result.metrics["returns/mean"] >= 60
    last = checkpoint.read_latest(written)
    assert last.ranks == 2
    # What went on counted on.
    assert result.metrics["env/total_steps"] == result.metrics["algorithm/steps"] * 2 * 256 * 64
