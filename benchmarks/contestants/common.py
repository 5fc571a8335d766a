"""What all contestants share: the work, the environments, the clock."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Work:
    """One line of the table."""

    env: str = "discrete"
    """discrete, continuous, cartpole, or wide: continuous, with HalfCheetah's numbers."""
    num_envs: int = 8192
    horizon: int = 32
    minibatch: int = 8192 * 32
    """Transitions."""
    epochs: int = 4
    hiddens: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    recurrent: bool = False
    """One LSTM of 256 with two linear heads, sequences of 4 steps, instead of the two networks."""
    ending: float = 0.0
    """Share of the rows whose episodes end in a step, half of them broken off; rlstack alone has it."""
    busy: bool = False
    """Whether other processes keep all cores busy meanwhile."""
    options: dict[str, Any] = field(default_factory=dict)
    """Hyperparameters of rlstack's own."""
    warm_up: int = 1
    iterations: int = 2

    @property
    def transitions(self) -> int:
        """Of one iteration."""
        return self.num_envs * self.horizon

    @property
    def num_actions(self) -> int:
        """Choices, or numbers."""
        return {"continuous": 1, "wide": 6}.get(self.env, 2)

    @property
    def obs_size(self) -> int:
        return {"cartpole": 4, "wide": 17}.get(self.env, 1)

    @property
    def is_continuous(self) -> bool:
        """Whether actions are numbers."""
        return self.env in ("continuous", "wide")


class Simulation:
    """The environments in plain torch; all are reset after each horizon, none ends before."""

    def __init__(self, work: Work) -> None:
        import torch

        self.torch, self.work = torch, work
        self.steps = 0
        self.state = self.reset()

    def reset(self) -> Any:
        shape = (self.work.num_envs, self.work.obs_size)
        scale = 0.05 if self.work.env == "cartpole" else 100.0
        self.state = self.torch.empty(shape).uniform_(-scale, scale)
        self.steps = 0
        return self.state.clone()

    def step(self, action: Any) -> tuple[Any, Any]:
        """Return observations [B, size] and rewards [B, 1] for actions [B, 1]."""
        if self.work.env == "cartpole":
            rewards = self._balance(action)
        elif self.work.env == "wide":
            # Bounded, so that nobody learns to run away.
            self.state[:, : self.work.num_actions] += action.clamp(-1.0, 1.0)
            rewards = -self.state.abs().mean(1, keepdim=True)
        else:
            self.state += action if self.work.env == "continuous" else 2 * action - 1
            rewards = -self.state.abs()
        self.steps += 1
        if self.steps == self.work.horizon:
            self.reset()
        return self.state.clone(), rewards

    def _balance(self, action: Any) -> Any:
        """A cart with a pole (Barto, Sutton & Anderson 1983), explicit Euler."""
        torch = self.torch
        x, v, angle, spin = self.state.unbind(-1)
        force = 20.0 * action.squeeze(-1) - 10.0
        sin, cos = angle.sin(), angle.cos()
        push = (force + 0.05 * spin.square() * sin) / 1.1
        turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos.square() / 1.1))
        pull = push - 0.05 * turn * cos / 1.1
        self.state = torch.stack((x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn), -1)
        return cos.unsqueeze(-1)


class Clock:
    """Times iterations; the contestant says when one ends, and when its collecting does."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.imported = memory_now()
        self.iterations: list[dict[str, float]] = []
        self._start = self._collected = time.perf_counter()

    def start(self) -> None:
        self._start = time.perf_counter()

    def collected(self) -> None:
        self._collected = time.perf_counter()

    def ended(self) -> bool:
        """Note an iteration; return whether it was the last."""
        now = time.perf_counter()
        self.iterations.append({"collect": self._collected - self._start, "step": now - self._collected})
        self._start = now
        return len(self.iterations) >= self.work.warm_up + self.work.iterations

    def report(self, **about: str) -> None:
        """Print the result for the parent process, with what is to be said about it."""
        counted = self.iterations[self.work.warm_up :]
        seconds = sum(sum(iteration.values()) for iteration in counted)
        collect = sum(iteration["collect"] for iteration in counted)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        result = {
            "rate": self.work.transitions * len(counted) / seconds,
            "collect": collect / seconds,
            "start_up": sum(self.iterations[0].values()),
            "memory": peak - self.imported,
            **about,
        }
        print(json.dumps(result))


def iterate(algorithm: Any, clock: Clock) -> None:
    """Play with an algorithm that has `collect` and `step`."""
    clock.start()
    while True:
        algorithm.collect()
        clock.collected()
        algorithm.step()
        if clock.ended():
            return


def memory_now() -> int:
    """Return the resident memory of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main(play: Callable[[Work, Clock], None], **about: str) -> None:
    """Read the work from the command line, let the contestant play, and print the result."""
    values = json.loads(sys.argv[1])
    values["hiddens"] = tuple(values.get("hiddens", Work.hiddens))
    work = Work(**values)
    clock = Clock(work)
    with spinning(os.cpu_count() or 1 if work.busy else 0):
        play(work, clock)
    clock.report(**about)


@contextlib.contextmanager
def spinning(count: int) -> Iterator[None]:
    """Keep so many cores busy meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
