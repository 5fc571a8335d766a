"""Transitions per second beside other libraries, on the same environments and networks.

    python benchmarks/throughput.py [--lines full minibatch …] [--peers rl8 sb3 …] [--write]

Each library runs in a virtual environment of its own (made under `.bench` the first time), each measurement
in a fresh process: one iteration to warm up, two that count. A peer's runs alternate with ours, five times
for rl8 and three times for the others, so that a slow minute of the machine slows both; ratios are taken pair
by pair. Between them the rate of plain matrix products is measured: that is the limit.

What was measured is kept in `.bench/throughput.json` as it comes, and another call goes on from there;
`--fresh` begins anew. `--write` puts the tables under `benchmarks/results`. `against.py` measures the same
lines beside an earlier rlstack.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BENCH = ROOT / ".bench"
STATE = BENCH / "throughput.json"
sys.path.append(str(HERE / "contestants"))
from common import Work  # noqa: E402 (beside the contestants, which import it in their own environments)

ROUNDS = {"rl8": 5}
OTHER_ROUNDS = 3
BLOCK = (1024, 256)
"""Rows and columns of the matrix products that are the limit: those of the default work's blocks."""


@dataclass(frozen=True)
class Peer:
    """A library that takes part."""

    title: str
    script: str
    packages: tuple[str, ...]
    """What to install; nothing if rlstack's own environment has it."""


PEERS = {
    "rl8": Peer("rl8 1.0.0", "rl8_", ("rl8==1.0.0", "torch")),
    "sb3": Peer("Stable-Baselines3 2.9.2", "sb3", ("stable-baselines3==2.9.2", "torch")),
    "cleanrl": Peer("CleanRL's way", "cleanrl", ()),
    "leanrl": Peer("LeanRL's way (compiled)", "leanrl", ()),
    "skrl": Peer("skrl 2.1.1", "skrl_", ("skrl==2.1.1", "torch")),
    "rsl_rl": Peer("rsl_rl 5.5.1", "rsl_rl_", ("rsl-rl-lib==5.5.1", "torch")),
    "torchrl": Peer("TorchRL 0.14.1", "torchrl_", ()),
    "itself": Peer("rlstack where nothing ends", "ours", ()),
    "alone": Peer("rlstack alone on the machine", "ours", ()),
    "rejax": Peer("rejax 0.1.3 (JAX)", "rejax_", ("rejax==0.1.3", "gymnax==0.0.9", "jax==0.10.2")),
}


@dataclass(frozen=True)
class Line:
    """A line of the table: some work, and who does it."""

    title: str
    work: Work
    peers: tuple[str, ...] = ("rl8", "sb3", "cleanrl", "skrl", "torchrl", "rejax")


AMP = {"enable_amp": True}
TORCH_AND_JAX = ("sb3", "cleanrl", "leanrl", "skrl", "rejax")


def tiny(num_envs: int, minibatch: int) -> Work:
    """Return the work of a recipe with few environments and many small optimizer steps."""
    return Work(
        env="cartpole",
        num_envs=num_envs,
        horizon=64,
        minibatch=minibatch,
        hiddens=(64, 64),
        activation="tanh",
        warm_up=3,
        iterations=20,
    )


LINES = {
    "full": Line("default work, full batch", Work()),
    "minibatch": Line("default work, minibatch 8192", Work(minibatch=8192)),
    # rl8 has no 16-bit precision on a CPU: ours beside its float32.
    "amp": Line("default work, full batch, ours in bfloat16", Work(options=AMP), ("rl8",)),
    "small": Line(
        "small: 64-64 tanh, 1024 environments, minibatch 4096",
        Work(num_envs=1024, minibatch=4096, hiddens=(64, 64), activation="tanh", iterations=10),
    ),
    "b64": Line("64 environments, full batch", Work(num_envs=64, minibatch=2048, iterations=20)),
    "tiny": Line("tiny: CartPole, 64-64 tanh, 32 environments, minibatch 64", tiny(32, 64), TORCH_AND_JAX),
    "cheetah": Line(
        "HalfCheetah's sizes: 8 environments, 256-256, minibatch 128, 10 iterations",
        Work(env="wide", num_envs=8, horizon=256, minibatch=128, epochs=10, warm_up=2, iterations=6),
        ("sb3", "cleanrl", "leanrl"),
    ),
    "tiny256": Line("tiny: the same, minibatch 256", tiny(32, 256), TORCH_AND_JAX),
    **{
        f"busy{num_envs}": Line(
            f"{num_envs} environments, other processes on all cores", replace(work, busy=True), ("alone",)
        )
        for num_envs, work in (
            (8, tiny(8, 64)),
            (32, tiny(32, 64)),
            (64, tiny(64, 64)),
            (8192, Work(minibatch=8192, iterations=1)),
        )
    },
    "recurrent": Line("recurrent: LSTM 256, sequences of 4", Work(recurrent=True), ("rl8", "cleanrl")),
    "continuous": Line(
        "continuous actions, 2048 environments, minibatch 8192",
        Work(env="continuous", num_envs=2048, minibatch=8192),
        ("rl8", "sb3", "cleanrl", "skrl", "rsl_rl", "torchrl", "rejax"),
    ),
    "cartpole": Line(
        "CartPole, 2048 environments, minibatch 8192", Work(env="cartpole", num_envs=2048, minibatch=8192)
    ),
    "endings": Line(
        "default work, full batch, 1 % of the rows end in each step", Work(ending=0.01), ("itself",)
    ),
    "ending-memories": Line(
        "recurrent, 1 % of the rows end in each step", Work(recurrent=True, ending=0.01), ("itself",)
    ),
}


def flops(work: Work) -> float:
    """Return the floating-point operations of one transition: products alone, two per multiplication."""
    outputs = work.num_actions + 1
    if work.recurrent:
        forward = 2 * 4 * 256 * (work.obs_size + 256) + 2 * 256 * outputs
        # Nobody needs the derivative by the observations.
        back = 2 * forward - 2 * 4 * 256 * work.obs_size
        return work.epochs * (forward + back) + forward * (1 + 1 / work.horizon)
    actor, critic = (
        [2 * a * b for a, b in zip((work.obs_size, *work.hiddens), (*work.hiddens, k), strict=True)]
        for k in (work.num_actions, 1)
    )
    forward = sum(actor) + sum(critic)
    back = 2 * forward - actor[0] - critic[0]
    return work.epochs * (forward + back) + forward + sum(critic) / work.horizon


def limit(seconds: float = 0.25, windows: int = 5) -> float:
    """Return the rate of matrix products in float32, FLOP/s: the median of some windows of time."""
    import torch

    rows, size = BLOCK
    x, weight, out = torch.randn(rows, size), torch.randn(size, size), torch.empty(rows, size)
    rates = []
    for _ in range(windows):
        start, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            torch.mm(x, weight, out=out)
            count += 1
        rates.append(2 * rows * size * size * count / passed)
    return statistics.median(rates)


def python(name: str) -> Path:
    """Return the interpreter of a contestant, after making its environment if there is none."""
    packages = PEERS[name].packages if name in PEERS else ()
    if not packages:
        return Path(sys.executable)
    return installed(BENCH / name, packages, ROOT / "constraints.txt" if "torch" in packages else None)


def installed(home: Path, packages: tuple[str, ...], pins: Path | None) -> Path:
    """Return the interpreter of an environment, after making it with these packages if there is none."""
    if not (home / ".installed").exists():
        print(f"installing {', '.join(packages)}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        constraints = ["-c", str(pins)] if pins else []
        subprocess.run([str(home / "bin" / "pip"), "install", "-q", *constraints, *packages], check=True)
        (home / ".installed").touch()
    return home / "bin" / "python"


def run(name: str, work: Work) -> dict[str, float]:
    """Return what a contestant measures in a fresh process."""
    if name in PEERS and PEERS[name].script != "ours":
        return play(python(name), PEERS[name].script, work)
    return play_rlstack(python(name), ROOT / "src", work)


def play_rlstack(interpreter: Path, src: Path, work: Work) -> dict[str, float]:
    """Return what the rlstack in `src` measures, whichever one the interpreter has installed."""
    # An editable install leads to its own checkout, a copy in site-packages to itself: this precedes both.
    result: dict[str, Any] = play(interpreter, "ours", work, PYTHONPATH=str(src))
    code = Path(result.pop("code"))
    if not code.is_relative_to(src):
        raise RuntimeError(f"measured {code}, expected the rlstack in {src}")
    return result


def play(interpreter: Path, script: str, work: Work, **variables: str) -> dict[str, Any]:
    """Return what a contestant's script says in a fresh process with these environment variables."""
    command = [str(interpreter), str(HERE / "contestants" / f"{script}.py"), json.dumps(asdict(work))]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "MLFLOW_DISABLE_TELEMETRY": "true"} | variables
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed with {interpreter} {variables}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def keep(path: Path, state: dict[str, Any]) -> None:
    """Write what was measured so far; a process that is killed meanwhile leaves what was there before."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(state, indent=1) + "\n")
    beside.replace(path)


def missing(line: str, peers: list[str], state: dict[str, Any]) -> Iterator[str]:
    """Yield the peers that still have to be measured, round after round."""
    done = {peer: len(state.get(line, {}).get(peer, [])) for peer in peers}
    for number in range(max(ROUNDS.values())):
        for peer in LINES[line].peers:
            if peer in peers and done[peer] <= number < ROUNDS.get(peer, OTHER_ROUNDS):
                yield peer


def measure(line: str, peers: list[str], state: dict[str, Any]) -> None:
    """Measure what is missing of a line, and keep it."""
    work = LINES[line].work
    # rl8 computes in float32 all the same, and takes no hyperparameters of ours.
    theirs = replace(work, options={}, ending=0.0, busy=False)
    ours: dict[str, float] | None = None
    for peer in list(missing(line, peers, state)):
        # One run of ours stands between two peers and is compared with both.
        first = ours is None
        mine = ours or run("ours", work)
        their = run(peer, theirs)
        ours = mine if first else None
        pair = {"ours": mine, "peer": their, "limit": limit(), "first": first}
        state.setdefault(line, {}).setdefault(peer, []).append(pair)
        keep(STATE, state)
        ratio = mine["rate"] / their["rate"]
        print(f"{line} {peer} {mine['rate']:,.0f} / {their['rate']:,.0f} = {ratio:.2f}", flush=True)


def middle(values: list[float], scale: float = 1.0, digits: int = 0) -> str:
    """Return median and range, like `12 (10–14)`."""
    numbers = (statistics.median(values), min(values), max(values))
    return "{} ({}–{})".format(*(f"{number / scale:,.{digits}f}" for number in numbers))


def table(line: str, peers: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the table of one line."""
    work = LINES[line].work
    pairs = [pair for each in peers.values() for pair in each]
    most = statistics.median(pair["limit"] for pair in pairs)
    mine = [pair["ours"] for pair in pairs if pair["first"] or len(pairs) == 1]

    def row(title: str, results: list[dict[str, float]], ratio: str) -> str:
        rates = [result["rate"] for result in results]
        share = statistics.median(rates) * flops(work) / most
        collect = statistics.median(result["collect"] for result in results)
        cells = (
            title,
            middle(rates),
            ratio,
            str(len(results)) if ratio else "",
            f"{share:.0%}",
            f"{collect:.0%}" if collect else "",
            middle([result["memory"] for result in results], 2**20),
        )
        return f"| {' | '.join(cells)} |"

    lines = [
        f"## {LINES[line].title}",
        "",
        f"Limit: {most / 1e9:,.0f} GFLOP/s in float32, {most / flops(work):,.0f} transitions/s.",
        "",
        "| library | transitions/s | rlstack is faster by | pairs | share of the limit | collecting | MiB |",
        "|---|---|---|---|---|---|---|",
        row("**rlstack**", mine, ""),
    ]
    for peer, each in sorted(
        peers.items(), key=lambda item: -statistics.median(p["peer"]["rate"] for p in item[1])
    ):
        ratios = [pair["ours"]["rate"] / pair["peer"]["rate"] for pair in each]
        lines.append(row(PEERS[peer].title, [pair["peer"] for pair in each], middle(ratios, digits=2)))
    return [*lines, ""]


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the command line in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--write", action="store_true", help="write the tables under benchmarks/results")
    parser.add_argument("--report", action="store_true", help="measure nothing, show what there is")
    args = parser.parse_args()
    BENCH.mkdir(exist_ok=True)
    state: dict[str, Any] = {} if args.fresh or not STATE.exists() else json.loads(STATE.read_text())
    for line in [] if args.report else args.lines:
        measure(line, args.peers, state)
    tables = [row for line in LINES if state.get(line) for row in table(line, state[line])]
    print(*tables, sep="\n")
    if args.write:
        note = (
            "Medians with minimum and maximum. MiB are the peak above the imports. The machine is shared:\n"
            "rates drift, ratios of alternating runs hold."
        )
        path = report.write("throughput", "Transitions per second", "make bench", note, tables)
        raw = {"machine": report.machine(), "measured": state}
        path.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
