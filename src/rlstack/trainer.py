"""Training until some condition holds, tracked."""

import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from types import FrameType
from typing import Any, final

import psutil
import torch

from . import data
from .algorithm import Algorithm, RecurrentAlgorithm
from .conditions import Condition, Or
from .data import Config, Stats
from .env.base import EnvFactory
from .tracking import Tracker


@final
class Trainer:
    """Trains a policy and tracks it with MLflow.

    The tracked run is the caller's active MLflow run if there is one at the first step, else a new one in the
    current experiment. By default MLflow keeps it in a SQLite file in the working directory.

    Args:
        env_cls: The environment's class, or any callable with the signature of `Env`.
        algorithm_cls: `Algorithm` or `RecurrentAlgorithm`.
        algorithm_config: Hyperparameters of the algorithm, by name.
        stop_conditions: When `run` stops: as soon as any of them holds.

    Raises:
        HparamsError: If a hyperparameter is unknown or can't be.
        EnvError: If the environment's specs can't be used.
    """

    algorithm: Algorithm | RecurrentAlgorithm
    interrupted: bool
    """Whether the last `run` was ended by Ctrl-C."""

    def __init__(
        self,
        env_cls: EnvFactory,
        /,
        *,
        algorithm_cls: type[Algorithm] | type[RecurrentAlgorithm] = Algorithm,
        algorithm_config: Config | None = None,
        stop_conditions: Sequence[Condition] | None = None,
    ) -> None:
        if not isinstance(algorithm_cls, type) or not issubclass(
            algorithm_cls, Algorithm | RecurrentAlgorithm
        ):
            raise TypeError(f"algorithm_cls is {algorithm_cls!r}, expected Algorithm or RecurrentAlgorithm")
        if algorithm_config is not None and not isinstance(algorithm_config, Mapping):
            raise TypeError(f"algorithm_config is {algorithm_config!r}, expected hyperparameters by name")
        self.stop_condition = _any_of(stop_conditions or [])
        self.algorithm = algorithm_cls(env_cls, **(algorithm_config or {}))
        self.collects = 0
        """How many horizons have been collected."""
        self.steps = 0
        """How many times the policy has been updated."""
        self.interrupted = False
        params = self.algorithm.params
        tags = {"version": version("rlstack"), "env": params["env"]}
        self.tracker = Tracker(params, tags)

    def step(self, *, env_config: Config | None = None) -> Stats:
        """Collect one horizon, update the policy once, and track both.

        Args:
            env_config: Options for the environment's next reset and those after it; None goes on as before.

        Returns:
            The statistics of both, the memory in use and the totals so far.
        """
        stats = self._update(env_config)
        self.tracker.log(stats)
        return stats

    def eval(self, *, env_config: Config | None = None, deterministic: bool = True) -> Stats:
        """Judge the policy on one horizon in environments of its own; training isn't disturbed.

        Args:
            env_config: Options for the reset of those environments.
            deterministic: Whether the policy acts without chance.

        Returns:
            Statistics of the horizon, `returns/…` and `rewards/…`.
        """
        return self.algorithm.eval(env_config=env_config, deterministic=deterministic)

    def run(
        self,
        *,
        env_config: Config | None = None,
        eval_env_config: Config | None = None,
        steps_per_eval: int | None = None,
        stop_conditions: Sequence[Condition] | None = None,
    ) -> Stats:
        """Train until a condition holds; without any, until Ctrl-C.

        Args:
            env_config: Options for the environment's resets.
            eval_env_config: Options for the resets of the environments that evaluations run in.
            steps_per_eval: Evaluate after every so many updates; the statistics then have `eval/…` too.
            stop_conditions: When to stop, instead of the trainer's own conditions.

        Returns:
            The statistics of the last update; empty if there was none.
        """
        updates = self.updates(
            env_config=env_config,
            eval_env_config=eval_env_config,
            steps_per_eval=steps_per_eval,
            stop_conditions=stop_conditions,
        )
        last = deque(updates, maxlen=1)
        return last[0] if last else {}

    def updates(
        self,
        *,
        env_config: Config | None = None,
        eval_env_config: Config | None = None,
        steps_per_eval: int | None = None,
        stop_conditions: Sequence[Condition] | None = None,
    ) -> Iterator[Stats]:
        """Train as `run` does, and yield the statistics after every update."""
        if steps_per_eval is not None and steps_per_eval < 1:
            raise ValueError(f"steps_per_eval is {steps_per_eval}, expected at least 1, or None for never")
        stop = self.stop_condition if stop_conditions is None else _any_of(stop_conditions)
        stop.reset()
        self.interrupted, status = False, "FAILED"
        with _interruptible() as interrupt:
            try:
                done = False
                while not done and not interrupt.is_set():
                    stats = self._update(env_config)
                    if steps_per_eval is not None and self.steps % steps_per_eval == 0:
                        evaluation = self.eval(env_config=eval_env_config)
                        stats |= {f"eval/{key}": value for key, value in evaluation.items()}
                    self.tracker.log(stats)
                    done = stop(stats)
                    yield stats
                self.interrupted = interrupt.is_set()
                status = "KILLED" if self.interrupted else "FINISHED"
            except KeyboardInterrupt:
                # Raised by what runs inside the loop, or by a second Ctrl-C: the update at hand is given up.
                self.interrupted, status = True, "KILLED"
            except GeneratorExit:
                status = "FINISHED"
                raise
            finally:
                # One more Ctrl-C gives up waiting for MLflow.
                with suppress(KeyboardInterrupt):
                    self.tracker.close(status)

    def _update(self, env_config: Config | None) -> Stats:
        stats = self.algorithm.collect(env_config=env_config)
        self.collects += 1
        stats |= self.algorithm.step()
        self.steps += 1
        return {
            **stats,
            **_memory(self.algorithm.device),
            "algorithm/collects": float(self.collects),
            "algorithm/steps": float(self.steps),
            data.ENV_TOTAL_STEPS: float(self.algorithm.env_steps),
        }


def _any_of(conditions: Sequence[Condition]) -> Or:
    if not isinstance(conditions, Sequence):
        raise TypeError(f"stop_conditions is a {type(conditions).__name__}, expected a list of conditions")
    return Or(*conditions)


def _memory(device: torch.device) -> Stats:
    """Return free and total memory of the device, bytes, and the share in use, percent."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
    else:
        memory = psutil.virtual_memory()
        free, total = memory.available, memory.total
    return {
        "memory/free": float(free),
        "memory/total": float(total),
        "memory/percent": 100 * (1 - free / total),
    }


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Let the first Ctrl-C set the event, so that an update is finished; the second one interrupts.

    Outside of the main thread there are no signals to handle.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before: Any = signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
