"""The table of simulators' speeds."""

import runpy
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_medians_beside_the_faster_of_gymnasiums_two(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    names = runpy.run_path(str(BENCHMARKS / "simulators.py"))
    found = {
        "sync": [90.0, 100.0, 500.0],
        "async": [200.0, 210.0],
        "gym": [410.0],
        "dm": [50.0],
        "mujoco": [],
    }
    table = names["rows"](found)
    assert table[2:] == [
        "| HalfCheetah-v5 | Gymnasium's SyncVectorEnv | 100 | 0.49× |",
        "| HalfCheetah-v5 | Gymnasium's AsyncVectorEnv | 205 | 1.00× |",
        "| HalfCheetah-v5 | rlstack, `gym:` | 410 | 2.00× |",
        "| cheetah run | rlstack, `dm:` | 50 | – |",
    ]
    assert {route.sim for route in names["ROUTES"].values()} == {
        "gymnasium",
        "envpool",
        "mujoco",
        "dm_control",
    }
