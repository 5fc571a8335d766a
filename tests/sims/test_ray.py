"""Ray Train and Ray Tune, on a real cluster of this machine's own."""

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
from rlstack.sweeps.options import SweepConfig
from rlstack.tracking.journal import JOURNAL, read_rows

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_two_workers_solve_cartpole_and_one_that_is_killed_costs_nothing(cluster, tmp_path):
    import sys

    # Workers import it by its name.
    sys.path.insert(0, str(EXAMPLES))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES), *sys.path])
    train = runpy.run_path(str(EXAMPLES / "ray_train.py"))["train"]
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


@pytest.mark.timeout(900)
def test_the_search_of_a_sweep_on_ray_tune(cluster, tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "ray_tune.py"))
    small = {"num_envs": 8, "horizon": 8, "sgd_minibatch_size": 64, "model_config": {"hiddens": [8]}}
    example["FILE"]["algorithm_config"] = {**small, "device": "cpu"}
    example["SWEEP"]["max_updates"] = 8
    results = example["main"](str(tmp_path), trials=4)
    assert len(results) == 4
    assert results.errors == []
    search = SweepConfig(**example["SWEEP"]).dimensions()
    updates = []
    for result in results:
        for name, dimension in search.items():
            least, *_, most = dimension.ends
            value = result.config[name]
            assert value in dimension.ends if isinstance(value, str) else least <= value <= most
        run = Path(result.path) / "run"
        rows = [row.metrics for row in read_rows(run / JOURNAL)]
        assert checkpoint.numbered(run / "checkpoints")
        assert rows[len(result.metrics_dataframe) - 1]["returns/mean"] == result.metrics["value"]
        updates.append(len(result.metrics_dataframe))
    # Some are trained to the end; who isn't among the best halves may be ended after five updates.
    assert max(updates) == 8
    assert min(updates) >= 5
    assert f"Best: {results.get_best_result().metrics['value']:.4g} at " in capsys.readouterr().out
