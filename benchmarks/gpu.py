"""Whether the GPU path is right, and how fast it is: what it rests on, then every engine and precision.

    python benchmarks/gpu.py [--seconds 3] [--write]

What it rests on is the table of docs/performance.md; the GPU tests say what of it holds. Each measurement
runs in a fresh process: three iterations to warm up, then as many as fit into the time, each ending when its
numbers are on the host. `--write` puts the result under `benchmarks/results`. Ends within eight minutes;
without a CUDA device it says so and measures nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import report
from gpu_tests import run_tests, verdicts
from throughput import LINES, Line, flops

ROOT = Path(__file__).parent.parent
TIME = 480.0
"""s, in all."""
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"matmul_precision": "highest"},
    "TF32": {"matmul_precision": "high"},
    "16 bits": {"enable_amp": True},
}
ENGINES = ("graph", "eager", "compile")
WORKS = ("full", "minibatch", "recurrent", "small", "continuous", "cartpole", "b64")
"""By how much they tell, should time run out."""


def measure(line: Line, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return rates, memory and the engine in use of rlstack on one line; runs in a process of its own."""
    from rlstack import Algorithm, RecurrentAlgorithm
    from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv

    work = line.work
    envs = {"discrete": DiscreteDummyEnv, "continuous": ContinuousDummyEnv, "cartpole": CartPole}
    if not work.recurrent:
        options["model_config"] = {"hiddens": list(work.hiddens), "activation_fn": work.activation}
    if work.minibatch < work.transitions:
        options["sgd_minibatch_size"] = work.minibatch
    cls = RecurrentAlgorithm if work.recurrent else Algorithm
    start = time.perf_counter()
    algorithm = cls(envs[work.env], num_envs=work.num_envs, horizon=work.horizon, device="cuda", **options)
    for _ in range(3):
        algorithm.collect()
        algorithm.step()
    start_up = time.perf_counter() - start
    # What the recordings keep counts, what proving them took doesn't.
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 2:
        began = time.perf_counter()
        algorithm.collect()
        collected = time.perf_counter()
        algorithm.step()
        times.append((collected - began, time.perf_counter() - collected))
    iterations = [sum(pair) for pair in times]
    return {
        "rate": work.transitions / statistics.median(iterations),
        "slowest": work.transitions / max(iterations),
        "collect": sum(pair[0] for pair in times) / sum(iterations),
        "start_up": start_up,
        "memory": torch.cuda.max_memory_reserved(),
        "engine": algorithm.engine,
    }


def run(name: str, options: dict[str, Any], seconds: float, left: float) -> dict[str, Any] | str:
    """Return what `measure` does in a fresh process, or why there is nothing."""
    command = [sys.executable, __file__, "--line", name, "--options", json.dumps(options)]
    command += ["--seconds", str(seconds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        return "out of time"
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "Error" in line]
        return said[-1] if said else f"exit code {done.returncode}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--write", action="store_true", help="write the table under benchmarks/results")
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--line", choices=LINES, help=argparse.SUPPRESS)
    parser.add_argument("--options", default="{}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing was tested and nothing was measured.")
        return
    if args.line:
        print(json.dumps(measure(LINES[args.line], json.loads(args.options), args.seconds)))
        return
    end = time.perf_counter() + TIME
    tests = [] if args.skip_tests else [*verdicts(run_tests())]
    print(*tests, sep="\n", flush=True)
    lines = [
        "| work | engine | precision | transitions/s | slowest | collecting | TFLOP/s | GiB | start-up, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print(*lines, sep="\n", flush=True)
    raw = []
    for name in WORKS:
        for engine in ENGINES:
            for precision, options in PRECISIONS.items():
                if engine != "graph" and (precision == "float32" or name not in WORKS[:3]):
                    continue
                left = end - time.perf_counter()
                result: dict[str, Any] | str = "out of time"
                if left > args.seconds:
                    result = run(name, {"engine": engine, **options}, args.seconds, left)
                raw.append({"line": name, "engine": engine, "precision": precision, "result": result})
                lines.append(row(LINES[name], engine, precision, result))
                print(lines[-1], flush=True)
    if args.write:
        gpu = torch.cuda.get_device_name()
        note = f"{gpu}.\nRates are medians; `slowest` is the slowest iteration."
        path = report.write(
            "gpu",
            "What holds on a GPU, and transitions per second",
            "make bench-gpu",
            note,
            [*tests, "", *lines],
        )
        path.with_suffix(".json").write_text(
            json.dumps({"machine": report.machine(), "gpu": gpu, "holds": tests, "measured": raw}, indent=1)
            + "\n"
        )


def row(line: Line, engine: str, precision: str, result: dict[str, Any] | str) -> str:
    """Return a line of the table."""
    if isinstance(result, str):
        return f"| {line.title} | {engine} | {precision} | {result} | | | | | |"
    cells = (
        line.title,
        result["engine"],
        precision,
        f"{result['rate']:,.0f}",
        f"{result['slowest']:,.0f}",
        f"{result['collect']:.0%}",
        f"{result['rate'] * flops(line.work) / 1e12:.1f}",
        f"{result['memory'] / 2**30:.2f}",
        f"{result['start_up']:.1f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
