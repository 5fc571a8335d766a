"""How fast an environment trains, where the time goes, and what holds it back."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..algorithm import Algorithm, RecurrentAlgorithm
from ..env.base import checked_reset, checked_step

_ADVICE = {
    "environment": "the environment holds training back: make its step() cheaper, in fewer and larger tensor "
    "operations without loops or .item(), before anything else",
    "policy": "the policy's forward passes hold training back: a smaller model or enable_amp=True helps, "
    "more environments don't",
    "update": "the policy's update holds training back: fewer num_sgd_iters, a smaller model or "
    "enable_amp=True help, a faster environment doesn't",
    "overhead": "what is around the tensors holds training back: simulate more environments at a time, "
    "num_envs, or take larger minibatches",
}

_MANY_ROWS = 512
"""From so many environments on, operations take longer than it takes to begin them, even on a GPU."""


@dataclass(frozen=True)
class Speed:
    """What was measured; times are of one iteration, `collect` and `step` once."""

    transitions_per_second: float
    environment: float
    """s, in `Env.step` and `Env.reset`, timed apart from the rest."""
    policy: float
    """s, in the rest of `collect`."""
    update: float
    """s, in `step`."""
    start_up: float
    """s, of the first iteration more than of a later one: compilation, recording, first use."""
    memory: float
    """Bytes at the peak: of the GPU, or of this process on a CPU."""
    engine: str
    """How it was computed."""
    optimizer_steps: str
    """How the optimizer steps were made."""
    num_envs: int
    horizon: int

    @property
    def bottleneck(self) -> str:
        """What holds training back, as a sentence with its share of the time."""
        parts = {"environment": self.environment, "policy": self.policy, "update": self.update}
        part = max(parts, key=lambda name: parts[name])
        share = parts[part] / sum(parts.values())
        advice = _ADVICE["overhead" if part == "policy" and self.num_envs < _MANY_ROWS else part]
        return f"{share:.0%} of the time is the {part}'s: {advice}."

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, for scripts."""
        return {**asdict(self), "bottleneck": self.bottleneck}


def measure_speed(
    env_cls: Callable[..., Any],
    hyperparameters: Mapping[str, Any],
    *,
    algorithm_cls: type[Algorithm] | type[RecurrentAlgorithm] = Algorithm,
    seconds: float = 5.0,
) -> Speed:
    """Train for some seconds and return how fast that was, and where the time went.

    Args:
        env_cls: The environment's class.
        hyperparameters: Of the algorithm.
        algorithm_cls: `Algorithm` or `RecurrentAlgorithm`.
        seconds: How long to measure, after two iterations that don't count.

    Raises:
        HparamsError, EnvError, NonFiniteError: As `Algorithm` raises them.
    """
    algorithm = algorithm_cls(env_cls, **hyperparameters)
    if algorithm.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(algorithm.device)
    # The first two make and record what later ones use again.
    warm_up = [sum(_iterate(algorithm)) for _ in range(2)]
    times: list[tuple[float, float]] = []
    start = time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        times.append(_iterate(algorithm))
    collect, update = (statistics.median(column) for column in zip(*times, strict=True))
    environment = min(_time_environment(algorithm), collect)
    hparams = algorithm.hparams
    return Speed(
        transitions_per_second=hparams.num_envs * hparams.horizon / (collect + update),
        environment=environment,
        policy=collect - environment,
        update=update,
        start_up=max(0.0, sum(warm_up) - 2 * (collect + update)),
        memory=_peak_memory(algorithm.device),
        engine=algorithm.engine,
        optimizer_steps=algorithm.optimizer_steps,
        num_envs=hparams.num_envs,
        horizon=hparams.horizon,
    )


def _iterate(algorithm: Algorithm | RecurrentAlgorithm) -> tuple[float, float]:
    """Return the times of one `collect` and one `step`, s; each ends when its numbers are on the host."""
    start = time.perf_counter()
    algorithm.collect()
    collected = time.perf_counter()
    algorithm.step()
    return collected - start, time.perf_counter() - collected


def _time_environment(algorithm: Algorithm | RecurrentAlgorithm) -> float:
    """Return the time of one horizon of the environment alone, with actions for the last one, s."""
    env, num_envs, config = algorithm.env, algorithm.hparams.num_envs, algorithm.hparams.env_config
    state = algorithm.policy.initial_state(num_envs)
    actions = [algorithm.policy.sample(obs, state).actions for obs in algorithm.collector.buffer.obs[:-1]]
    times = []
    for _ in range(3):
        _wait(algorithm.device)
        start = time.perf_counter()
        checked_reset(env, num_envs, config, algorithm.device)
        for step, action in enumerate(actions):
            checked_step(env, num_envs, action, step, algorithm.device)
        _wait(algorithm.device)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
