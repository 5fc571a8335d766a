"""Training until some condition holds, tracked."""

import logging
import math
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

from . import checkpoint, data
from .algorithm import Algorithm, RecurrentAlgorithm
from .conditions import Condition, any_of
from .data import Config, Stats
from .device import memory_stats, system_stats
from .env.base import EnvFactory
from .guards import Guard
from .run_dir import RunDir, restore
from .run_options import AlgorithmConfig, OnNonFinite, check_trainer, make_algorithm, trainer_of
from .signals import interruptible
from .tracked_run import track_as
from .tracking import Tracker

_log = logging.getLogger(__name__)


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
        run_dir: Where to keep the configuration, metrics and checkpoints; None keeps nothing.
        checkpoint_config: Fields of `rlstack.run_options.CheckpointConfig`: when to write a checkpoint.
        on_nonfinite: After NaN or infinity: `raise` the error, `skip` what it was in, or `restore` the last
            checkpoint with half the learning rate; both a bounded number of times.
        system_metrics: Whether the statistics have those of the machine too, `system/…`.
        track: Whether to track with MLflow.

    Raises:
        HparamsError: If a hyperparameter is unknown or can't be.
        EnvError: If the environment's specs can't be used.
        RunDirError: If the run directory holds another run, or is in use.
    """

    algorithm: Algorithm | RecurrentAlgorithm
    interrupted: int | None
    """The signal that ended the last `run`, SIGINT (Ctrl-C) or SIGTERM; None if none did."""

    def __init__(
        self,
        env_cls: EnvFactory,
        /,
        *,
        algorithm_cls: type[Algorithm] | type[RecurrentAlgorithm] = Algorithm,
        algorithm_config: AlgorithmConfig | None = None,
        stop_conditions: Sequence[Condition] | None = None,
        run_dir: str | os.PathLike[str] | RunDir | None = None,
        checkpoint_config: Config | None = None,
        on_nonfinite: OnNonFinite = "raise",
        system_metrics: bool = False,
        track: bool = True,
    ) -> None:
        check_trainer(run_dir, checkpoint_config, on_nonfinite)
        self.stop_condition = any_of(stop_conditions or [])
        self.algorithm = make_algorithm(env_cls, algorithm_cls, algorithm_config)
        self.collects, self.steps = 0, 0
        """How many horizons have been collected, and how often the policy has been updated."""
        self.interrupted, self._resumed = None, False
        self._last: Stats = {}
        self._system_metrics = system_metrics
        if run_dir is None or isinstance(run_dir, RunDir):
            self.run_dir = run_dir
        else:
            options = {"on_nonfinite": on_nonfinite, "system_metrics": system_metrics}
            self.run_dir = RunDir.begin(Path(run_dir), checkpoint_config or {}, options, self.algorithm)
        self._guard = Guard(self.algorithm, on_nonfinite, self.run_dir and self.run_dir.checkpoints)
        run = track_as(self.algorithm.params, self.run_dir and self.run_dir.path)
        self.tracker = Tracker(run, self.run_dir and self.run_dir.journal, enabled=track)

    @classmethod
    def resume(
        cls,
        run_dir: str | os.PathLike[str],
        /,
        *,
        env_cls: EnvFactory | None = None,
        algorithm_config: AlgorithmConfig | None = None,
        stop_conditions: Sequence[Condition] | None = None,
        options: Config | None = None,
        track: bool = True,
    ) -> "Trainer":
        """Return a trainer that goes on from a run's last sound checkpoint, bit by bit as it would have.

        Args:
            run_dir: The run's directory.
            env_cls: The environment's class, if its name in the run's config.yaml doesn't do.
            algorithm_config: Hyperparameters that can't be read from there, like a `model`, or are to differ
                from now on: all can, but `num_envs`, `optimizer_cls` and those of the policy.
            stop_conditions: When `run` stops.
            options: `checkpoint_config`, `on_nonfinite` and `system_metrics`, where they are to differ.
            track: Whether to track with MLflow.

        Raises:
            RunDirError: If there is no such run, or it is in use.
            ConfigError: If its config.yaml can't be used.
            CheckpointError: If it has no sound checkpoint.
        """
        env_cls, made_with, checkpoints = trainer_of(Path(run_dir), env_cls, algorithm_config, options)
        directory = RunDir(Path(run_dir), checkpoints)
        try:
            trainer = cls(
                env_cls, run_dir=directory, stop_conditions=stop_conditions, track=track, **made_with
            )
            trainer._take_over(checkpoint.read_latest(directory.checkpoints))
            directory.saved = trainer.steps
            if algorithm_config:
                directory.describe_anew(trainer.algorithm)
        except BaseException:
            directory.close()
            raise
        return trainer

    def save(self, directory: str | os.PathLike[str] | None = None) -> Path:
        """Write a checkpoint to a directory, None is the run's `checkpoints`; return where it is.

        Raises:
            ValueError: If there is neither.
            TypeError: If the optimizer or the environment keeps what no file can hold.
            RuntimeError: If a horizon has been collected that `step` hasn't used.
            OSError: If it can't be written; what was there is as it was.
        """
        run_dir, algorithm = self.run_dir if directory is None else None, self.algorithm
        if directory is None and run_dir is None:
            raise ValueError("there is no run_dir: name a directory for the checkpoint")
        info = {
            "collects": self.collects,
            "updates": self.steps,
            "env_steps": algorithm.env_steps,
            "stats": {key: value for key, value in self._last.items() if math.isfinite(value)},
            "params": algorithm.params,
            "mlflow_run_id": self.tracker.run_id,
        }
        where = run_dir.make_ready() if run_dir else Path(directory or "")
        path = checkpoint.write(where, self.steps, algorithm.policy, algorithm.state_dict(), info)
        if run_dir:
            run_dir.keep(path, self._last)
        return path

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint, or from the last sound one in a directory of them.

        Hyperparameters, and another `seed`, stay those of this trainer.

        Raises:
            CheckpointError: If it is damaged, or of another algorithm or environment; training is as it was.
            RunDirError: If the run directory holds checkpoints of later updates.
        """
        read = checkpoint.read_latest if checkpoint.numbered(Path(path)) else checkpoint.read
        said = read(Path(path))
        if self.run_dir is not None:
            self.run_dir.check_last(said.info["updates"])
        self._take_over(said)

    def step(self, *, env_config: Config | None = None) -> Stats:
        """Collect one horizon, update the policy once, and track both; return their statistics and totals.

        Args:
            env_config: Options for the environment's next reset and those after it; None goes on as before.
        """
        stats = self._update(env_config)
        self._record(stats)
        return stats

    def close(self) -> None:
        """Send what is left to MLflow, and let another trainer have the run directory."""
        self.tracker.close()
        if self.run_dir is not None:
            self.run_dir.close()

    def eval(self, *, env_config: Config | None = None, deterministic: bool = True) -> Stats:
        """Return `returns/…` and `rewards/…` of a horizon in environments of its own, training undisturbed.

        Its arguments are those of `Algorithm.eval`; `rlstack eval` judges by ten horizons.
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
        """Train until a condition holds, without any until Ctrl-C; return the statistics of the last update.

        Args:
            env_config: Options for the environment's resets.
            eval_env_config: Options for the resets of the environments that evaluations run in.
            steps_per_eval: Evaluate after every so many updates; the statistics then have `eval/…` too.
            stop_conditions: When to stop, instead of the trainer's own conditions.
        """
        how = {"env_config": env_config, "eval_env_config": eval_env_config}
        updates = self.updates(**how, steps_per_eval=steps_per_eval, stop_conditions=stop_conditions)
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
        if steps_per_eval is not None and (type(steps_per_eval) is not int or steps_per_eval < 1):
            raise ValueError(f"steps_per_eval is {steps_per_eval!r}, expected at least 1, or None for never")
        stop = self.stop_condition if stop_conditions is None else any_of(stop_conditions)
        stop.reset()
        self.interrupted, status = None, "FAILED"
        try:
            with interruptible() as interrupt:
                # A run that was over before it was stopped makes no further update.
                done = self._resumed and stop(self._last)
                self._resumed = False
                while not done and interrupt.signum is None:
                    stats = self._update(env_config)
                    try:
                        if steps_per_eval is not None and self.steps % steps_per_eval == 0:
                            evaluation = self.eval(env_config=eval_env_config)
                            stats |= {f"eval/{key}": value for key, value in evaluation.items()}
                    finally:
                        self._record(stats)
                    done = stop(stats)
                    yield stats
                self.interrupted = interrupt.signum
                status = "FINISHED" if self.interrupted is None else "KILLED"
                self._try_to_save()
        except KeyboardInterrupt:
            # Raised by what runs inside the loop, or by a second signal: the update at hand is given up.
            self.interrupted, status = interrupt.signum or signal.SIGINT, "KILLED"
        except GeneratorExit:
            status = "FINISHED"
            self._try_to_save()
            raise
        finally:
            # One more Ctrl-C gives up waiting for MLflow.
            with suppress(KeyboardInterrupt):
                self.tracker.close(status)

    def _update(self, env_config: Config | None) -> Stats:
        if self._guard.goes_back and self.run_dir is not None and self.run_dir.saved < 0:
            self._try_to_save()
        stats, horizons = self._guard.update(env_config)
        self.collects += horizons
        self.steps += 1
        self._last = {
            **stats,
            **memory_stats(self.algorithm.device),
            **(system_stats(self.algorithm.device) if self._system_metrics else {}),
            "algorithm/collects": float(self.collects),
            "algorithm/steps": float(self.steps),
            data.ENV_TOTAL_STEPS: float(self.algorithm.env_steps),
        }
        return self._last

    def _take_over(self, said: checkpoint.Checkpoint) -> None:
        restore(self.algorithm, said)
        self.collects, self.steps = said.info["collects"], said.info["updates"]
        self._last = dict(said.info["stats"])
        self._resumed = self.steps > 0
        if self.run_dir is not None:
            # The metrics after it will come again.
            self.run_dir.journal.cut(self.algorithm.env_steps)

    def _record(self, stats: Stats) -> None:
        """Track the statistics of an update, and write a checkpoint if one is due."""
        self.tracker.log(stats)
        if self.run_dir is not None and self.run_dir.is_due(self.steps):
            self._try_to_save()

    def _try_to_save(self) -> None:
        """Write a checkpoint if it isn't there; if that can't be, training goes on."""
        if self.run_dir is not None and self.steps != self.run_dir.saved:
            try:
                self.save()
            except (OSError, TypeError) as error:
                _log.warning("no checkpoint could be written, training goes on: %s", error)
                self.run_dir.put_off()
