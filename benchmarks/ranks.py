"""Two ranks on two cores against one with two threads, and what the cost model of docs/scaling.md says.

python benchmarks/ranks.py [--updates N] [--write]

The same optimizer steps either way: each of two ranks has half of the environments and of each minibatch.
The constants are measured apart from that: one rank's work beside a second process that does the same and
says nothing to it, and the time of the ranks' calls.
"""

import argparse
import json
import os
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rlstack import Algorithm
from rlstack.distributed.ranks import join
from rlstack.env import DiscreteDummyEnv
from rlstack.ppo.executor import Executor

NUM_ENVS, HORIZON, ITERATIONS = 1024, 32, 2
SIZES = {"64": 64, "8192": 8192, "full": NUM_ENVS * HORIZON}
RESULTS = Path(__file__).parent / "results"


def seconds_per_update(size: int, share: int, updates: int, *, single_steps: bool) -> float:
    """Return the median time of an update of `1 / share` of the work."""
    algorithm = Algorithm(
        DiscreteDummyEnv,
        num_envs=NUM_ENVS // share,
        horizon=HORIZON,
        sgd_minibatch_size=size // share,
        num_sgd_iters=ITERATIONS,
        device="cpu",
        seed=0,
    )
    if single_steps:
        # As several ranks make them, each followed by a reduction.
        algorithm._executor = Executor(algorithm.collector, algorithm.learner, algorithm.advantages)
    times = []
    for _ in range(updates + 2):
        start = time.perf_counter()
        algorithm.collect()
        algorithm.step()
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[updates // 2]


def calls() -> dict[str, float]:
    """Return the times of the ranks' calls, s, and how many numbers the gradient has."""
    ranks, size = join(), 2 * (256 + 256 * 256 + 256) + 256 * 2 + 2 + 256 + 1 + 512
    found, gradient = {"numbers": float(size)}, torch.zeros(size)
    for name, call in {
        "exchange": lambda: ranks.exchange("bench", {"read": dict.fromkeys(map(str, range(20)), 0.5)}),
        "gather": lambda: ranks.gather("bench", torch.zeros(5, 3, dtype=torch.float64)),
        "small": lambda: ranks.average([torch.zeros(8)], None),
        "gradient": lambda: ranks.average([gradient], None),
    }.items():
        times = []
        for _ in range(60):
            start = time.perf_counter()
            call()  # type: ignore[no-untyped-call]
            times.append(time.perf_counter() - start)
        found[name] = sorted(times)[30]
    return found


def work(rank: int, kind: str, size: int, updates: int, place: str, out: str) -> None:
    """Do what a process of a measurement does, and leave what rank 0 has found in a file."""
    torch.set_num_threads(2 if kind == "one" else 1)
    if kind in ("two", "calls"):
        dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    if kind == "calls":
        found: Any = calls()
    else:
        found = seconds_per_update(size, 1 if kind == "one" else 2, updates, single_steps=kind == "apart")
    if rank == 0:
        Path(out).write_text(json.dumps(found))


def measured(kind: str, size: int = 0, updates: int = 0) -> Any:
    """Return what a measurement finds, in processes of its own."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        arguments = (kind, size, updates, str(Path(directory) / "place"), str(out))
        mp.spawn(work, arguments, nprocs=1 if kind == "one" else 2)  # type: ignore[attr-defined, no-untyped-call]
        return json.loads(out.read_text())


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=9, help="of each measurement")
    parser.add_argument("--write", action="store_true", help="write the results under benchmarks/results")
    asked = parser.parse_args()
    constants = measured("calls")
    rows = {}
    for name, size in SIZES.items():
        one, apart, two = (measured(kind, size, asked.updates) for kind in ("one", "apart", "two"))
        steps = ITERATIONS * NUM_ENVS * HORIZON // size
        # Without a trainer there is no exchange at the end of an update.
        said = apart + constants["exchange"] + constants["gather"] + steps * constants["gradient"]
        rows[name] = {"one": one, "apart": apart, "two": two, "ratio": one / two, "predicted": one / said}
        print(name, json.dumps(rows[name]), flush=True)
    found = {"cores": os.cpu_count(), "torch": torch.__version__, "constants": constants, "rows": rows}
    print(json.dumps(constants))
    if asked.write:
        path = RESULTS / f"ranks-{date.today()}.json"
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
