"""A fixed-seed run must not move: a refactoring leaves it as it is, an intended change updates the record.

`python -m tests.test_golden` writes the record anew. The tolerance allows for another CPU's arithmetic.
"""

import json
from pathlib import Path

import pytest
import torch

from rlstack import Algorithm, RecurrentAlgorithm
from rlstack.env import CartPole, Pendulum

RECORD = Path(__file__).parent / "golden.json"
RUNS = {
    "feedforward": (Algorithm, CartPole, {"horizons_per_env_reset": 2, "sgd_minibatch_size": 128}),
    "recurrent": (RecurrentAlgorithm, Pendulum, {"model_config": {"hidden_size": 16}}),
}
KEYS = (
    "returns/mean",
    "losses/policy",
    "losses/vf",
    "losses/entropy",
    "monitors/kl_div",
    "monitors/explained_variance",
    "monitors/grad_norm",
)


def play(name):
    algorithm_cls, env_cls, changes = RUNS[name]
    algorithm = algorithm_cls(env_cls, num_envs=32, horizon=16, seed=0, device="cpu", **changes)
    return [
        {key: value for key, value in (algorithm.collect() | algorithm.step()).items() if key in KEYS}
        for _ in range(4)
    ]


@pytest.mark.parametrize("name", RUNS)
def test_golden_run(name):
    expected = json.loads(RECORD.read_text())[name]
    for got, want in zip(play(name), expected, strict=True):
        assert got == pytest.approx(want, rel=2e-3, abs=2e-5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    RECORD.write_text(json.dumps({name: play(name) for name in RUNS}, indent=1) + "\n")
