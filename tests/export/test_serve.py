"""The example that serves a policy, in a process that has neither torch nor rlstack."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from rlstack import Algorithm
from rlstack.env import CartPoleV1

SERVE = Path(__file__).parents[2] / "examples" / "serve_onnx.py"
NEEDED = ["numpy", "onnxruntime", "gymnasium", "cloudpickle", "farama_notifications", "typing_extensions"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Return the environment of a Python that has these packages alone."""
    home = tmp_path_factory.mktemp("packages")
    for name in NEEDED:
        origin = Path(importlib.util.find_spec(name).origin)
        place = origin.parent if origin.name == "__init__.py" else origin
        (home / place.name).symlink_to(place)
        if (libraries := place.with_name(f"{name}.libs")).is_dir():
            (home / libraries.name).symlink_to(libraries)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(home)}


def python(environment, *arguments):
    # -S: no site-packages but those of the path.
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def score(policy, seed):
    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        action = policy.act(torch.from_numpy(obs)[None], deterministic=True).actions.item()
        obs, reward, terminated, truncated, _ = env.step(action)
        total, ended = total + reward, terminated or truncated
    return total


def test_it_gets_the_same_score_without_torch(elsewhere, tmp_path):
    options = {
        "num_envs": 64,
        "horizon": 32,
        "horizons_per_env_reset": -1,
        "sgd_minibatch_size": 256,
        "seed": 0,
    }
    options |= {"optimizer_config": {"lr": 3e-3}, "model_config": {"hiddens": [32]}}
    algorithm = Algorithm(CartPoleV1, **options)
    for _ in range(4):
        algorithm.collect()
        algorithm.step()
    path = algorithm.policy.export(tmp_path / "policy.onnx").path
    for name in ("torch", "rlstack"):
        assert "ModuleNotFoundError" in python(elsewhere, "-c", f"import {name}").stderr
    done = python(elsewhere, SERVE, path, "CartPole-v1", "--hz", "1000", "--episodes", "3")
    assert done.returncode == 0, done.stderr
    steps, p50, p99, mean = re.fullmatch(
        r"(\d+) steps at 1000 Hz: p50 ([\d.]+) ms, p99 ([\d.]+) ms\nMean score of 3 episodes: ([\d.]+)\n",
        done.stdout,
    ).groups()
    expected = [score(algorithm.policy, seed) for seed in range(3)]
    assert float(mean) == pytest.approx(np.mean(expected), abs=0.005)
    # Somebody who only falls gets 9.
    assert float(mean) > 20
    assert int(steps) == sum(expected)
    assert 0 < float(p50) <= float(p99)
