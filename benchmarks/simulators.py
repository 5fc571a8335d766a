"""Steps per second of simulators, as rlstack steps them and as they are, with random actions.

    python benchmarks/simulators.py [--routes sync async …] [--num-envs 64] [--rounds 3] [--write]

Each route runs in a process and an environment of its own, `.sims/NAME`, made as `make test-sims SIM=NAME`
makes it; `--python NAME=PATH` takes another one. Rounds alternate between the routes, so that a slow minute
of the machine slows all of them; the table has the medians, and how much faster each is than the faster of
Gymnasium's Sync- and AsyncVectorEnv on its task.

What was measured is kept in `.bench/simulators.json` as it comes, and another call goes on from there;
`--fresh` begins anew. `--write` puts the table under `benchmarks/results`.
"""

import argparse
import json
import os
import runpy
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".bench" / "simulators.json"

GYM_TASK, DM_TASK = "HalfCheetah-v5", "cheetah run"
"""Gymnasium's and DM Control's: not the same, and only compared with themselves."""

Step = Callable[[], Any]
"""Takes one step of all simulations."""


def plain(vector: Any) -> Step:
    """Return what steps a vector environment itself."""
    vector.reset(seed=0)
    vector.action_space.seed(0)
    actions = vector.action_space.sample()
    return lambda: vector.step(actions)


def pooled(task: str, num_envs: int) -> Any:
    """Return EnvPool's environments."""
    make = import_module("envpool").make_gymnasium
    return make(task, num_envs=num_envs, num_threads=os.cpu_count(), seed=0)


def plain_pool(task: str, num_envs: int) -> Step:
    """Return what steps EnvPool itself."""
    import numpy as np

    vector = pooled(task, num_envs)
    vector.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (num_envs, *vector.action_space.shape))
    return lambda: vector.step(actions)


def ours(env_cls: Any, num_envs: int, **options: Any) -> Step:
    """Return what steps an environment of rlstack's."""
    env = env_cls(num_envs, config=options)
    env.reset()
    actions = env.action_spec.rand((num_envs,))
    return lambda: env.step(actions)


def named(module: str, name: str, *arguments: str) -> Any:
    """Return what a module of `rlstack.env` has, called with arguments if there are any."""
    found = getattr(import_module(f"rlstack.env.{module}"), name)
    return found(*arguments) if arguments else found


def gym_vector(kind: str, num_envs: int) -> Any:
    """Return Gymnasium's own vector environment of a kind."""
    return import_module("gymnasium").make_vec(GYM_TASK, num_envs, vectorization_mode=kind)


def from_pool(task: str) -> Any:
    """Return EnvPool's environments as a class of rlstack's."""

    def factory(num_envs: int, seed: int) -> Any:
        return pooled(task, num_envs)

    return named("gymnasium", "from_vector")(factory)


@dataclass(frozen=True)
class Route:
    """One way to step a task."""

    title: str
    task: str
    sim: str
    """Whose environment it runs in: the name of a file in `tests/sims`."""
    start: Callable[[int], Step]
    """Makes so many simulations."""


def _gym(num_envs: int, mode: str) -> Step:
    return ours(named("gymnasium", "make", GYM_TASK), num_envs, vectorization_mode=mode)


ROUTES = {
    "sync": Route("Gymnasium's SyncVectorEnv", GYM_TASK, "gymnasium", lambda n: plain(gym_vector("sync", n))),
    "async": Route(
        "Gymnasium's AsyncVectorEnv", GYM_TASK, "gymnasium", lambda n: plain(gym_vector("async", n))
    ),
    "envpool": Route("EnvPool", GYM_TASK, "envpool", lambda n: plain_pool(GYM_TASK, n)),
    "gym": Route("rlstack, `gym:`", GYM_TASK, "gymnasium", lambda n: _gym(n, "sync")),
    "gym-async": Route("rlstack, `gym:`, async", GYM_TASK, "gymnasium", lambda n: _gym(n, "async")),
    "from-envpool": Route(
        "rlstack, `from_vector` of EnvPool", GYM_TASK, "envpool", lambda n: ours(from_pool(GYM_TASK), n)
    ),
    "mujoco": Route(
        "rlstack, batched MuJoCo", GYM_TASK, "mujoco", lambda n: ours(named("mujoco", "HalfCheetah"), n)
    ),
    "envpool-dm": Route("EnvPool", DM_TASK, "envpool", lambda n: plain_pool("CheetahRun-v1", n)),
    "dm": Route(
        "rlstack, `dm:`", DM_TASK, "dm_control", lambda n: ours(named("dm_control", "make", "cheetah-run"), n)
    ),
}


def measure(route: str, num_envs: int, seconds: float) -> float:
    """Return how many steps all simulations of a route together take in a second."""
    step = ROUTES[route].start(num_envs)
    for _ in range(3):
        step()
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or count < 2:
        step()
        count += 1
    return count * num_envs / passed


def in_a_process(route: str, python: Path, arguments: argparse.Namespace) -> float:
    """Return what `measure` does, from a process of its own."""
    command = [str(python), __file__, "--measure", route, "--num-envs", str(arguments.num_envs)]
    command += ["--seconds", str(arguments.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{route}: {done.stderr.strip()[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def rows(found: dict[str, list[float]]) -> list[str]:
    """Return a Markdown table of what was measured."""
    speeds = {route: statistics.median(numbers) for route, numbers in found.items() if numbers}
    least = max((speeds[route] for route in ("sync", "async") if route in speeds), default=None)
    table = ["| task | route | steps/s | beside the faster of Gymnasium's two |", "|---|---|---|---|"]
    for name, route in ROUTES.items():
        if name in speeds:
            ratio = f"{speeds[name] / least:.2f}×" if least and route.task == GYM_TASK else "–"
            table.append(f"| {route.task} | {route.title} | {speeds[name]:,.0f} | {ratio} |")
    return table


def pythons(routes: list[str], given: list[str]) -> dict[str, Path]:
    """Return the interpreters of the simulators that some routes need."""
    found = {name: Path(path) for name, _, path in (each.partition("=") for each in given)}
    environment = runpy.run_path(str(ROOT / "tests" / "sims" / "run.py"))["environment"]
    for sim in dict.fromkeys(ROUTES[route].sim for route in routes):
        if sim not in found:
            found[sim] = environment(sim)
    return found


def main() -> None:
    """Measure what isn't measured yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=list(ROUTES))
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", choices=ROUTES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.num_envs, arguments.seconds)))
        return
    key = f"{arguments.num_envs} simulations, {arguments.seconds:g} s"
    kept = json.loads(STATE.read_text()) if STATE.is_file() and not arguments.fresh else {}
    found = kept.setdefault(key, {})
    todo = [route for route in arguments.routes if len(found.get(route, ())) < arguments.rounds]
    interpreters = pythons(todo, arguments.python)
    for number in range(arguments.rounds):
        for route in arguments.routes:
            numbers = found.setdefault(route, [])
            if len(numbers) <= number:
                numbers.append(in_a_process(route, interpreters[ROUTES[route].sim], arguments))
                print(f"{route:<14} {numbers[-1]:>12,.0f} steps/s", flush=True)
                STATE.parent.mkdir(exist_ok=True)
                STATE.write_text(json.dumps(kept))
    table = rows({route: found[route] for route in arguments.routes})
    print("\n".join(table))
    if arguments.write:
        import report

        command = f"python benchmarks/simulators.py --num-envs {arguments.num_envs}"
        note = f"Medians of {arguments.rounds} rounds of {arguments.seconds:g} s, random actions, {key}."
        print(report.write("simulators", "Steps per second of simulators", command, note, table))


if __name__ == "__main__":
    main()
