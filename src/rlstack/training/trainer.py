"""Training until some condition holds, tracked."""

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, final

from ..algorithm import Algorithm, RecurrentAlgorithm
from ..common.types import Config, Stats
from ..conditions import Condition, any_of
from ..env.base import EnvFactory
from ..keywords import AlgorithmConfig
from ..runs import checkpoint
from ..runs.options import OnNonFinite, check_trainer
from ..runs.rank_states import found_by_first
from ..runs.restore import check_can_be_kept
from ..runs.run_dir import RunDir, closed_on_error
from ..runs.saved_config import make_algorithm, trainer_of
from ..tracking.mlflow_run import track_as
from ..tracking.mlflow_sender import MlflowSender
from .facts import Facts
from .interrupts import interruptible
from .keeper import Keeper
from .nonfinite import NonFiniteHandler
from .stopping import Stopping


@final
class Trainer(Facts):
    """Trains a policy and tracks it with MLflow.

    The tracked run is the caller's active MLflow run if there is one at the first step, else a new one in the
    current experiment. By default MLflow keeps it in a SQLite file in the working directory.

    `with Trainer(…) as trainer:` closes it at the end. One that wasn't closed and isn't at work saves what it
    has learned and ends when a later trainer of the same process wants its run directory.

    Args:
        env_cls: The environment's class, or any callable with the signature of `Env`.
        algorithm_cls: `Algorithm` or `RecurrentAlgorithm`.
        algorithm_config: Hyperparameters of the algorithm, by name.
        stop_conditions: When `run` stops: as soon as any of them holds.
        run_dir: Where to keep the configuration, metrics and checkpoints; None keeps nothing.
        checkpoint_config: Fields of `rlstack.CheckpointConfig`: when to write a checkpoint.
        on_nonfinite: After NaN or infinity: `raise` the error, `skip` what it was in, or `restore` the last
            checkpoint with half the learning rate; both a bounded number of times.
        system_metrics: Whether the statistics have those of the machine too, `system/…`.
        track: Whether to track with MLflow.

    Raises:
        HparamsError: If a hyperparameter is unknown or can't be, or checkpoints couldn't be written.
        EnvError: If the environment's specs can't be used.
        RunDirError: If the run directory holds another run, or is in use.
    """

    algorithm: Algorithm | RecurrentAlgorithm
    interrupted: int | None
    """The signal that ended the last `run`, SIGINT (Ctrl-C), SIGTERM or SIGHUP; None if none did."""

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
        if run_dir is not None and not isinstance(run_dir, RunDir):
            # Where it is now: what is called below may change the working directory.
            run_dir = Path(run_dir).absolute()
        self.stop_condition = any_of(stop_conditions or [])
        self.algorithm = make_algorithm(env_cls, algorithm_cls, algorithm_config)
        self.interrupted = None
        if run_dir is not None:
            check_can_be_kept(self.algorithm)
        if isinstance(run_dir, Path):
            options = {"on_nonfinite": on_nonfinite, "system_metrics": system_metrics}
            run_dir = RunDir.begin(run_dir, checkpoint_config or {}, options, self.algorithm)
        self.run_dir: RunDir | None = run_dir
        ranks = self.algorithm.ranks
        with closed_on_error(run_dir), ranks.telling():
            run = track_as(self.algorithm.params, run_dir and run_dir.path)
            self.tracker = MlflowSender(run, run_dir and run_dir.journal, enabled=track and not ranks.index)
            self._keeper = Keeper(self.algorithm, run_dir, self.tracker, system_metrics=system_metrics)
            self._nonfinite = NonFiniteHandler(self.algorithm, on_nonfinite, self._keeper, run_dir)
            self._stopping = Stopping(self._keeper)

    @property
    def done(self) -> bool:
        """Whether a stop condition holds after the last update, for `while not trainer.done: trainer.step()`.

        Conditions that remember earlier updates know of those after which this was asked.
        """
        return self._stopping.settle(self.stop_condition)

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
    ) -> Self:
        """Return a trainer that goes on from a run's last sound checkpoint, bit by bit as it would have.

        Args:
            run_dir: The run's directory.
            env_cls: The environment's class, if its name in the run's config.yaml doesn't do.
            algorithm_config: Hyperparameters that can't be read from there, like a `model`, or are to differ
                from now on: all can, but `optimizer_cls` and those of the policy. With another `num_envs`
                or `env_config` the environments are reset, and all else goes on.
            stop_conditions: When `run` stops.
            options: `checkpoint_config`, `on_nonfinite` and `system_metrics`, where they are to differ.
            track: Whether to track with MLflow.

        Raises:
            RunDirError: If there is no such run, or it is in use.
            ConfigError: If its config.yaml can't be used.
            CheckpointError: If it has no sound checkpoint.
        """
        path = Path(run_dir).absolute()
        env_cls, made_with, checkpoints = trainer_of(path, env_cls, algorithm_config, options)
        directory = RunDir.go_on(path, checkpoints)
        with closed_on_error(directory):
            trainer = cls(
                env_cls, run_dir=directory, stop_conditions=stop_conditions, track=track, **made_with
            )
            trainer._keeper.go_on_from(
                directory.read_checked(trainer.algorithm, (algorithm_config or {}).keys())
            )
            directory.saved = trainer.steps
            if algorithm_config:
                directory.describe_anew(trainer.algorithm)
        return trainer

    def save(self, directory: str | os.PathLike[str] | None = None) -> Path:
        """Write a checkpoint to a directory, None is the run's `checkpoints`; return where it is.

        Raises:
            ValueError: If there is neither.
            TypeError: If the optimizer or the environment keeps what no file can hold.
            RuntimeError: If a horizon has been collected that `step` hasn't used.
            RunDirError: If the run directory isn't this trainer's any more.
            OSError: If it can't be written; what was there is as it was.
        """
        return self._keeper.save(None if directory is None else Path(directory))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint, or from the last sound one in a directory of them.

        Hyperparameters, and another `seed`, stay those of this trainer.

        Raises:
            CheckpointError: If it is damaged, or of another algorithm or environment; training is as it was.
            RunDirError: If the run directory holds checkpoints of later updates.
        """
        read = checkpoint.read_latest if checkpoint.numbered(Path(path)) else checkpoint.read
        said = found_by_first(self.algorithm.ranks, lambda: read(Path(path)))
        if self.run_dir is not None:
            self.run_dir.check_last(said)
        self._keeper.go_on_from(said)

    def step(self, *, env_config: Config | None = None) -> Stats:
        """Collect one horizon, update the policy once, and track both; return their statistics and totals.

        Args:
            env_config: Options from the next reset on, or at once with `set_config`; None goes on as before.

        Raises:
            RunDirError: If the run directory isn't this trainer's any more: it was closed, or taken over.
            RuntimeError: In a process that was forked from that which made this trainer.
        """
        with self._keeper.at_work():
            stats = self._nonfinite.update(env_config)
            self._keeper.record()
            self._stopping.after_step(self.stop_condition)
        return stats

    def close(self) -> None:
        """Send what is left to MLflow, and let another trainer have the run directory.

        Without a run directory it may be gone on with.
        """
        self._keeper.close()

    def __enter__(self) -> Self:
        """Return itself, to be closed in the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; to MLflow an error means FAILED, all else that ends the block by force KILLED."""
        forced = "FAILED" if kind is not None and issubclass(kind, Exception) else "KILLED"
        self._keeper.close(None if kind is None else forced)

    def eval(self, *, env_config: Config | None = None, deterministic: bool = True) -> Stats:
        """Return the statistics of a horizon in environments of its own, training undisturbed.

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
        progress: bool = False,
    ) -> Stats:
        """Train until a condition holds, without any until Ctrl-C; return the statistics of the last update.

        Args:
            env_config: Options for the environment's resets.
            eval_env_config: Options for the resets of the environments that evaluations run in.
            steps_per_eval: Evaluate after every so many updates; the statistics then have `eval/…` too.
            stop_conditions: When to stop, instead of the trainer's own conditions.
            progress: Whether to show how training goes: a line that moves, in a terminal and in a notebook.
        """
        how = {"env_config": env_config, "eval_env_config": eval_env_config}
        updates = self.updates(**how, steps_per_eval=steps_per_eval, stop_conditions=stop_conditions)
        last = deque(self._shown(updates, stop_conditions) if progress else updates, maxlen=1)
        return last[0] if last else {}

    def updates(
        self,
        *,
        env_config: Config | None = None,
        eval_env_config: Config | None = None,
        steps_per_eval: int | None = None,
        stop_conditions: Sequence[Condition] | None = None,
    ) -> Iterator[Stats]:
        """Train as `run` does, and yield the statistics after every update.

        What is added to them counts as theirs: they are tracked, a checkpoint is written and conditions are
        asked when the loop goes on, or is left.

        Raises:
            StatisticError: If that is no number.
        """
        if steps_per_eval is not None and (type(steps_per_eval) is not int or steps_per_eval < 1):
            raise ValueError(f"steps_per_eval is {steps_per_eval!r}, expected at least 1, or None for never")
        stop = self.stop_condition if stop_conditions is None else any_of(stop_conditions)
        self._stopping.begin(stop)
        self.interrupted, status, keeper = None, "FAILED", self._keeper
        try:
            with keeper.at_work(), interruptible() as interrupt:
                # A run that was over before it was stopped makes no further update.
                done = keeper.resumed and self._stopping.holds(stop)
                keeper.resumed = False
                while not (done or interrupt.is_over):
                    stats = self._nonfinite.update(env_config)
                    try:
                        if steps_per_eval is not None and self.steps % steps_per_eval == 0:
                            evaluation = self.eval(env_config=eval_env_config)
                            stats |= {f"eval/{key}": value for key, value in evaluation.items()}
                        yield stats
                    finally:
                        keeper.record()
                    done = self._stopping.settle(stop, interrupt)
                keeper.try_to_save()
                self.interrupted = interrupt.signum
                status = "FINISHED" if not interrupt.is_over else "KILLED"
                if interrupt.error is not None:
                    raise interrupt.error
        except KeyboardInterrupt:
            # Raised by what runs inside the loop, or by a second signal: the update at hand is given up.
            self.interrupted, status = interrupt.signum or signal.SIGINT, "KILLED"
        except GeneratorExit:
            status = "FINISHED"
            keeper.try_to_save()
            raise
        finally:
            # One more Ctrl-C gives up waiting for MLflow.
            with suppress(KeyboardInterrupt):
                self.tracker.close(status)
