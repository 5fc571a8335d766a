"""What tracking costs: the rate of `Trainer.run` beside that of bare `collect(); step()`.

    python benchmarks/overhead.py [--pairs 5] [--seconds 20] [--num-envs 256] [--write]

Both train the same in fresh processes that alternate; the first updates, while MLflow is imported and its
database made, don't count. The ratio is taken pair by pair.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report

WARM_UP = 10.0
"""s."""


def contest(how: str, num_envs: int, seconds: float) -> float:
    """Return updates per second after the warm-up."""
    from rlstack import Trainer
    from rlstack.common.types import Stats
    from rlstack.conditions import Condition, TimesOut
    from rlstack.env import DiscreteDummyEnv

    trainer = Trainer(DiscreteDummyEnv, algorithm_config={"num_envs": num_envs, "seed": 0, "device": "cpu"})
    start = time.perf_counter()
    times = []

    class Clock(Condition):
        def __call__(self, stats: Stats) -> bool:
            times.append(time.perf_counter() - start)
            return False

    clock = Clock()
    if how == "trainer":
        trainer.run(stop_conditions=[clock, TimesOut(WARM_UP + seconds)])
    else:
        while not times or times[-1] < WARM_UP + seconds:
            stats = trainer.algorithm.collect()
            stats |= trainer.algorithm.step()
            clock(stats)
    counted = [moment for moment in times if moment >= WARM_UP]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def run(how: str, args: argparse.Namespace) -> float:
    command = [sys.executable, str(Path(__file__).resolve()), "--contestant", how]
    command += ["--num-envs", str(args.num_envs), "--seconds", str(args.seconds)]
    environment = os.environ | {"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            command, cwd=directory, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        print(contest(args.contestant, args.num_envs, args.seconds))
        return
    lines = [
        "| pair | Trainer.run, updates/s | bare, updates/s | ratio |",
        "|---|---|---|---|",
    ]
    ratios = []
    for pair in range(args.pairs):
        # Each is first every other time.
        order = ("trainer", "bare") if pair % 2 == 0 else ("bare", "trainer")
        rates = {how: run(how, args) for how in order}
        ratios.append(rates["trainer"] / rates["bare"])
        lines.append(f"| {pair} | {rates['trainer']:.3f} | {rates['bare']:.3f} | {ratios[-1]:.3f} |")
        print(lines[-1], flush=True)
    lines.append(f"| median | | | {statistics.median(ratios):.3f} |")
    print(lines[-1])
    if args.write:
        command = f"python benchmarks/overhead.py --num-envs {args.num_envs} --write"
        note = "The machine is shared: the ratios of single pairs scatter, their median is what holds."
        report.write("overhead", "What tracking costs", command, note, lines)


if __name__ == "__main__":
    main()
