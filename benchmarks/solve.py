"""Train the built-in recipes and judge the policies in Gymnasium's own environments.

    python benchmarks/solve.py [--seeds 0 1 2] [--algorithm recurrent] [--write]
    python benchmarks/solve.py --suite gym|dm|classic [--names gym:Ant-v5] [--seeds 0 1 2] [--runs DIRECTORY]
    python benchmarks/solve.py --pages

Each policy is trained by `rlstack train NAME --seed S --max-time 3m`, with `--algorithm recurrent` if that is
asked for, in a process of its own, loaded from the file that leaves, and acts deterministically in 100
episodes with the seeds 0 … 99. Prints a Markdown table; `--write` also puts it under `benchmarks/results`.

With `--suite` tasks that others have published results of are trained for as long as they did, over as many
sittings as it takes: what is finished isn't done again, and what was interrupted goes on. `--pages` writes
what is known of them into `docs/results.md` and the README.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report
import suite_pages
import suites
from episodes import play
from rlstack import Policy, RecurrentPolicy

EPISODES = 100

GOALS = {
    "cartpole": ("CartPole-v1", "500 steps in ≥ 99 episodes"),
    "cartpole-v1": ("CartPole-v1", "mean return ≥ 475"),
    "acrobot-v1": ("Acrobot-v1", "mean return ≥ -100"),
    "pendulum": ("Pendulum-v1", "mean return ≥ -200"),
    "mountain-car": ("MountainCar-v0", "the flag in ≥ 95 episodes"),
}


RETURNS = {"cartpole-v1": 475.0, "acrobot-v1": -100.0, "pendulum": -200.0}


POLICIES: dict[str, type[Policy] | type[RecurrentPolicy]] = {
    "feedforward": Policy,
    "recurrent": RecurrentPolicy,
}


def judge(name: str, policy: Policy | RecurrentPolicy) -> tuple[str, bool]:
    """Return the result in words, and whether the goal is met."""
    returns, lengths, terminated = play(GOALS[name][0], policy, EPISODES)
    if name == "cartpole":
        full = int((lengths == 500).sum())
        return f"500 steps in {full} of {EPISODES}, mean {lengths.mean():.1f}", full >= 99
    if name in RETURNS:
        said = f"mean return {returns.mean():.1f}, worst {returns.min():.1f}"
        return said, bool(returns.mean() >= RETURNS[name])
    arrived = int(terminated.sum())
    return f"the flag in {arrived} of {EPISODES}, after {lengths.mean():.0f} steps on average", arrived >= 95


def train(name: str, algorithm: str, seed: int, directory: Path) -> tuple[Policy | RecurrentPolicy, float]:
    """Return the policy that the command line trains, and how long its process took, s."""
    command = [sys.executable, "-m", "rlstack", "train", name, "--seed", str(seed), "--max-time", "3m"]
    command += ["--algorithm", algorithm]
    start = time.perf_counter()
    subprocess.run([*command, "--run-dir", "run"], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    return POLICIES[algorithm].load(directory / "run" / "policy.safetensors"), seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--suite", choices=suites.SUITES)
    parser.add_argument("--runs", type=Path, default=Path("runs/suites"), help="where run directories lie")
    parser.add_argument("--pages", action="store_true", help="write docs/results.md and the README's table")
    parser.add_argument("--algorithm", choices=POLICIES, default="feedforward")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    known = [task.name for task in suites.SUITES[args.suite]] if args.suite else list(GOALS)
    if unknown := set(args.names or ()) - set(known):
        parser.error(f"--names has {', '.join(unknown)}, expected some of {', '.join(known)}")
    if args.suite:
        suites.run(args.suite, args.names, args.seeds, args.runs)
    if args.pages:
        suite_pages.write()
    return 0 if args.suite or args.pages else solve(args)


def solve(args: argparse.Namespace) -> int:
    """Train the built-in recipes and print their table; return 1 if one isn't solved."""
    lines = ["| environment | goal | seed | wall time | result | met |", "|---|---|---|---|---|---|"]
    print(*lines, sep="\n", flush=True)
    all_met = True
    for name in args.names or GOALS:
        env_id, goal = GOALS[name]
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as directory:
                policy, seconds = train(name, args.algorithm, seed, Path(directory))
            result, met = judge(name, policy)
            all_met &= met and seconds <= 180
            lines.append(
                f"| {env_id} | {goal} | {seed} | {seconds:.0f} s | {result} | {'yes' if met else 'NO'} |"
            )
            print(lines[-1], flush=True)
    if args.write:
        note = "Wall time is that of the whole process, imports and MLflow's new database included."
        title, name, option = "Recipes, judged in Gymnasium's own environments", "solve", ""
        if args.algorithm == "recurrent":
            title, name, option = f"{title}: recurrent policies", "solve-recurrent", " --algorithm recurrent"
        report.write(name, title, f"python benchmarks/solve.py{option} --write", note, lines, "gymnasium")
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
