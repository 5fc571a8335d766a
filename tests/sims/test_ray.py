"""The example on a real Ray, which is started here and ended again: `make test-ray`."""

import runpy
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from rlstack.runs import checkpoint
from rlstack.sweeps.options import SweepConfig
from rlstack.tracking.journal import JOURNAL, read_rows

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield runpy.run_path(str(EXAMPLES / "ray_tune.py"))
    finally:
        ray.shutdown()


@pytest.mark.timeout(900)
def test_the_search_of_a_sweep_on_ray_tune(example, tmp_path, capsys):
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
