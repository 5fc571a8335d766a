"""The default work: transitions per second and peak memory, beside rl8 1.0.0.

    python benchmarks/throughput.py [--pairs 3] [--lines full minibatch amp] [--write]

DiscreteDummyEnv with 8192 environments, a horizon of 32, two networks 1 → 256 → 256 → (2 | 1), Adam, 4 SGD
iterations; as one full batch, or in minibatches of 8192. Each library runs in a virtual environment of its
own (rl8's is made under `.bench` the first time) and each measurement in a fresh process: one iteration to
warm up, two that count. The contestants alternate, so that a slow minute of the machine slows both; ratios
are taken pair by pair. `--write` puts the result under `benchmarks/results`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import report

ROOT = Path(__file__).parent.parent
RL8 = ROOT / ".bench" / "rl8"
TRANSITIONS = 8192 * 32
LINES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "full": ("full batch", {}, {}),
    "minibatch": ("minibatch 8192", {"sgd_minibatch_size": 8192}, {"sgd_minibatch_size": 8192}),
    # rl8 has no 16-bit precision on a CPU: ours beside its float32.
    "amp": ("full batch, ours with enable_amp", {"enable_amp": True}, {}),
}
"""Title, our hyperparameters and rl8's."""


def contest(library: str, config: dict[str, Any]) -> dict[str, float]:
    """Run inside the library's own environment; return its rate and its memory above the imports."""
    if library == "rl8":
        from rl8 import AlgorithmConfig  # type: ignore[import-not-found]
        from rl8.env import DiscreteDummyEnv  # type: ignore[import-not-found]
    else:
        from rlstack import Algorithm
        from rlstack.env import DiscreteDummyEnv

    imported = memory_now()
    if library == "rl8":
        algorithm = AlgorithmConfig(device="cpu", **config).build(DiscreteDummyEnv)
    else:
        algorithm = Algorithm(DiscreteDummyEnv, device="cpu", **config)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        algorithm.collect()
        algorithm.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"rate": TRANSITIONS / statistics.mean(seconds[1:]), "memory": peak - imported}


def memory_now() -> int:
    """Return the resident memory of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def run(library: str, config: dict[str, Any]) -> dict[str, float]:
    """Return what `contest` measures in a fresh process."""
    python = RL8 / "bin" / "python" if library == "rl8" else Path(sys.executable)
    command = [str(python), __file__, "--contestant", library, "--config", json.dumps(config)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{library} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def make_rl8() -> None:
    if (RL8 / ".installed").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(RL8)], check=True)
    pip = [
        str(RL8 / "bin" / "pip"),
        "install",
        "-q",
        "-c",
        str(ROOT / "constraints.txt"),
        "rl8==1.0.0",
        "torch",
    ]
    subprocess.run(pip, check=True)
    (RL8 / ".installed").touch()


def middle(values: list[float], scale: float = 1.0, digits: int = 0) -> str:
    """Return median and range, like `12 (10–14)`."""
    numbers = (statistics.median(values), min(values), max(values))
    return "{} ({}–{})".format(*(f"{number / scale:,.{digits}f}" for number in numbers))


def measure(name: str, pairs: int) -> tuple[str, list[dict[str, Any]]]:
    """Return the table's line and the raw measurements."""
    title, our_config, their_config = LINES[name]
    raw = []
    for _ in range(pairs):
        raw.append({"rlstack": run("rlstack", our_config), "rl8": run("rl8", their_config)})
        print(name, json.dumps(raw[-1]), file=sys.stderr, flush=True)
    ours, theirs = ([pair[library] for pair in raw] for library in ("rlstack", "rl8"))
    ratios = [pair["rlstack"]["rate"] / pair["rl8"]["rate"] for pair in raw]
    cells = [
        title,
        middle([result["rate"] for result in ours]),
        middle([result["rate"] for result in theirs]),
        middle(ratios, digits=2),
        middle([result["memory"] for result in ours], 2**20),
        middle([result["memory"] for result in theirs], 2**20),
    ]
    return f"| {' | '.join(cells)} |", raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--config", default="{}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        print(json.dumps(contest(args.contestant, json.loads(args.config))))
        return
    make_rl8()
    lines = [
        "| work | rlstack, transitions/s | rl8 1.0.0, transitions/s | ratio | rlstack, MiB | rl8, MiB |",
        "|---|---|---|---|---|---|",
    ]
    print(*lines, sep="\n", flush=True)
    raw = {}
    for name in args.lines:
        line, raw[name] = measure(name, args.pairs)
        lines.append(line)
        print(line, flush=True)
    if args.write:
        note = (
            "Medians with minimum and maximum; MiB are the peak above the imports. The machine is shared:\n"
        )
        note += "rates drift, ratios of alternating runs are what holds."
        command = "python benchmarks/throughput.py --write"
        path = report.write("throughput", "The default work beside rl8", command, note, lines)
        raw_path = path.with_suffix(".json")
        raw_path.write_text(json.dumps({"machine": report.machine(), "raw": raw}, indent=1) + "\n")


if __name__ == "__main__":
    main()
